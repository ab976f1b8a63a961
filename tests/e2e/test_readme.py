"""Every code block of the README runs, in order, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.helpers import model_server
from tests.policy.tiny import save_tiny

ROOT = Path(__file__).parents[2]
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
PYTHON = [code for language, code in BLOCKS if language == "python" and "from trl import" not in code]
"""Those with TRL's trainer run in its own environment: tests/trainers/trl/test_readme.py."""
SHELL = [
    line.partition("#")[0].strip()
    for language, code in BLOCKS
    if language == "sh"
    for line in code.splitlines()
    if line.startswith("agentenv ")
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model for the blocks that need one: nobody downloads anything here."""
    return str(save_tiny(tmp_path_factory.mktemp("model")))


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": "error"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_block(number: int, tmp_path: Path, model: str) -> None:
    code = PYTHON[number].replace(MODEL, model)
    with model_server() as server:
        code = code.replace("http://127.0.0.1:8000/v1", server.url)
        assert run([sys.executable, "-c", code], tmp_path).strip()


def test_shell_blocks(tmp_path: Path, model: str) -> None:
    assert len(SHELL) >= 3
    for line in SHELL:
        run(["sh", "-c", line.replace(MODEL, model)], tmp_path)
    assert (tmp_path / "sft-weak" / "manifest.json").exists()


def test_the_readme_says_what_must_be_said() -> None:
    text = (ROOT / "README.md").read_text()
    for word in ("make demo", "make test", "Limits", "Troubleshooting", "Environments and presets"):
        assert word in text
