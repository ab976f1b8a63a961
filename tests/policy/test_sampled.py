"""Ids and log-probabilities of engines: whole, or refused; and no turn of a trainer's engine is taken unseen."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import ConfigError, PolicyError, UnknownNameError
from agentenv.policy.exact import Request, Sampled, TokenPolicy
from agentenv.policy.sampled import log_probabilities, token_ids
from agentenv.tokens.template import TemplateRenderer
from tests.policy.tiny import tiny
from tests.policy.words import seen

ODD = st.none() | st.booleans() | st.text() | st.floats() | st.integers() | st.lists(st.integers(), max_size=2)


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1) | st.lists(ODD) | ODD)
def test_ids_are_whole_numbers_that_are_not_negative_or_refused(value: Any) -> None:
    right = isinstance(value, list) and value and all(type(one) is int and 0 <= one < 2**31 for one in value)
    if right:
        assert token_ids("ids", value) == tuple(value)
    else:
        with pytest.raises(ValueError, match=r"^ids (is|holds) "):
            token_ids("ids", value)


@given(st.lists(st.floats(max_value=0, allow_infinity=False)) | st.lists(ODD), st.integers(0, 3))
def test_log_probabilities_are_finite_and_one_a_token_or_refused(values: list[Any], more: int) -> None:
    def right(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and value <= 0.01

    if not more and all(map(right, values)):
        assert log_probabilities("logprobs", values, len(values)) == tuple(min(0.0, float(one)) for one in values)
    else:
        with pytest.raises(ValueError, match=r"^logprobs (has|holds) "):
            log_probabilities("logprobs", values, len(values) + more)


def test_numbers_of_numpy_are_numbers() -> None:
    assert token_ids("ids", tuple(np.arange(3))) == (0, 1, 2)
    with pytest.raises(ValueError, match="no log-probability"):
        log_probabilities("logprobs", [-(10**400)], 1)
    values = log_probabilities("logprobs", np.array([-0.5, 0.001], np.float32).tolist(), 2)
    assert values == (-0.5, 0.0)


class Engine(TokenPolicy):
    """Samples one row, whatever it is asked."""

    def __init__(self, row: Sampled, **options: Any) -> None:
        super().__init__(TemplateRenderer(tiny()[1]), **options)
        self.row = row

    async def sample(self, request: Request) -> Sampled:
        return self.row


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (Sampled(None, None, "stop"), "ids is absent"),  # type: ignore[arg-type]
        (Sampled((), (-1.0,), "stop"), "logprobs has 1 log-probabilities for 0 tokens"),
        (Sampled((5, -1), None, "stop"), "ids holds -1, which is no token id"),
        (Sampled(("5",), None, "stop"), "ids holds '5', which is no token id"),  # type: ignore[arg-type]
        (Sampled((5, 6), (-1.0,), "stop"), "logprobs has 1 log-probabilities for 2 tokens"),
        (Sampled((5,), (math.nan,), "stop"), "logprobs holds nan, which is no log-probability"),
        (Sampled((5,), (-math.inf,), "stop"), "logprobs holds -inf, which is no log-probability"),
    ],
)
async def test_a_turn_that_cannot_be_is_an_error_at_the_turn(row: Sampled, why: str) -> None:
    with pytest.raises(PolicyError, match=f"the turn that the engine sampled cannot be used: {why}") as caught:
        await Engine(row).act(seen())
    assert caught.value.permanent


def test_versions_of_weights_are_texts_without_commas() -> None:
    policy = Engine(Sampled((5,), None, "stop"))
    assert policy.version == ""
    policy.version = "step-3"
    for wrong in (3, None, ["a"], "step-3,step-4"):
        with pytest.raises(ConfigError, match=r"version=.*: expected a text without commas"):
            policy.version = wrong  # type: ignore[assignment]
    assert policy.version == "step-3"
    with pytest.raises(UnknownNameError, match="unknown dialect 'klingon'"):
        Engine(Sampled((5,), None, "stop"), native_dialect="klingon")
