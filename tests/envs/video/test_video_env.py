"""The video environment, played."""

from __future__ import annotations

from typing import Any

import pytest

import agentenv
from agentenv.envs.video.kinds import KINDS

FILMS: dict[str, Any] = {"difficulty": 1, "cache": None}


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_can_be_demonstrated(kind: str) -> None:
    run = agentenv.rollout("video", "reference", tasks=1, kinds=[kind], **FILMS)
    assert [t.reward for t in run] == [1.0]
    assert [t.task.metadata["kind"] for t in run] == [kind]
    assert [t.outcome.rewards["spans_seen"].value for t in run if t.outcome] == [1.0]
