"""Runs commands in the process of the test; the fixture `sh` gives a `Shell` in a folder of its own."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agentenv.cli import main


class Result:
    """What a command said, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Runs commands in a folder of their own."""

    def __init__(self, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder = folder
        self._capture, self._patch = capture, monkeypatch

    def __call__(self, *arguments: str, typed: str = "") -> Result:
        self._patch.setattr(sys, "stdin", io.StringIO(typed))
        self._capture.readouterr()
        code = main(arguments)
        said = self._capture.readouterr()
        return Result(code, said.out, said.err)
