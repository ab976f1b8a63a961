"""A small model of random weights, and a server of it, for all that plays through vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainers.vllm.models import text_model
from tests.trainers.vllm.server import FLAGS, vllm_server


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model(tmp_path_factory.mktemp("text") / "tiny")


@pytest.fixture(scope="session")
def server(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with vllm_server(text, "tiny", tmp_path_factory.mktemp("log") / "log", *FLAGS) as address:
        yield address
