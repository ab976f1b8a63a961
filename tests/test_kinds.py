"""What annotations let through, and how what they do not is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentenv
from agentenv._kinds import check_kinds, described, fits, paths_as_text
from agentenv.errors import ConfigError, UnknownNameError
from agentenv.spec import Limits

if TYPE_CHECKING:
    from nowhere import Thing  # type: ignore[import-not-found]


@runtime_checkable
class Named(Protocol):
    name: str


class Loose(Protocol):
    name: str


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (str, ["", "x"], [1, None, b"x", Path("x")]),
        (int, [0, -1, np.int64(3)], [True, 1.0, "1", None]),
        (float, [0, 1.5, np.float32(1)], [True, "1", None]),
        (bool, [True, False], [0, 1, "yes"]),
        (int | None, [None, 3], [1.5, "x"]),
        (Literal["a", "b"], ["a"], ["c", 1, None]),
        (Literal[1] | None, [1, None], [True, 1.0]),
        (Sequence[str], [["x"], ("x", "y"), []], ["x", [1], {"x": 1}, 3]),
        (Iterable[str], ["x", {"x"}, iter(["x"])], [3, [1], b"x"]),
        (tuple[int, ...], [(1, 2)], [("x",), 3]),
        (Mapping[str, int], [{}, {"a": 1}], [{"a": "x"}, {1: 1}, [], "x"]),
        (Path, [Path("x")], ["x", 3]),
        (str | Path, ["x", Path("x")], [3]),
        (Callable[[int], str], [len, lambda x: x], ["x", 3]),
        (Limits | Mapping[str, Any], [Limits(), {"turns": 3}], [3, [], "x"]),
        (Annotated[int, "more"], [3], ["x"]),
        (Named, [np.dtype("int8")], [3, "x"]),
        (Loose, [3, "x"], []),  # cannot be told
        (Any, [3, None, "x"], []),
    ],
)
def test_what_fits(hint: Any, right: list[Any], wrong: list[Any]) -> None:
    assert all(fits(value, hint) for value in right)
    assert not any(fits(value, hint) for value in wrong)
    assert described(hint)


def world(
    *,
    words: Sequence[str] = (),
    thing: Thing | None = None,
    kind: Literal["a", "b"] = "a",
    at: str = "",
    file: Path = Path(),
) -> None:
    """Takes what an environment's function may take."""


def test_what_is_wrong_is_told_by_name() -> None:
    check_kinds("world", world, {"words": ["x"], "thing": 3, "kind": "b", "unknown": 3})
    with pytest.raises(
        ConfigError, match=re.escape("world: option words is 'x'; it wants a list of texts, for instance words=[\"x\"]")
    ):
        check_kinds("world", world, {"words": "x"})
    with pytest.raises(UnknownNameError, match="unknown kind 'c'; known: a, b"):
        check_kinds("world", world, {"kind": "c"})
    with pytest.raises(ConfigError, match="option kind is 3; it wants 'a' or 'b'"):
        check_kinds("world", world, {"kind": 3})


def test_a_path_stands_for_its_text_where_a_text_is_wanted(tmp_path: Path) -> None:
    given = {"at": Path("x"), "file": Path("y"), "kind": Path("a"), "words": Path("z")}
    assert paths_as_text(world, given) == {"at": "x", "file": Path("y"), "kind": "a", "words": Path("z")}
    assert agentenv.make("geo", cache=tmp_path, tools=["image_zoom"]).env_spec.kwargs["cache"] == str(tmp_path)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_a_union_fits_what_one_of_its_members_fits(value: Any) -> None:
    hints = (str, int, Sequence[str], Mapping[str, Any], None)
    union = str | int | Sequence[str] | Mapping[str, Any] | None
    assert fits(value, union) == any(fits(value, hint) for hint in hints)
