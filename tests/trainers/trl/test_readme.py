"""The README's blocks with TRL's trainer, on a CPU and with a model that nobody has to download."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainers.trl.tiny import model, template, tokenizer

README = (Path(__file__).parents[3] / "README.md").read_text()
BLOCKS = [code for code in re.findall(r"^```python\n(.*?)^```", README, re.S | re.M) if "from trl import" in code]
CPU = 'output_dir="out", use_cpu=True, bf16=False, report_to="none", save_strategy="no"'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3 with its tokenizer and template."""
    made = tmp_path_factory.mktemp("model")
    tokens = tokenizer(template("qwen3"))
    model(tokens).save_pretrained(made)
    tokens.save_pretrained(made)
    return made


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number: int, tmp_path: Path, folder: Path) -> None:
    code = BLOCKS[number].replace("Qwen/Qwen3-0.6B", str(folder)).replace('output_dir="out"', CPU)
    code = code.replace("spec.config()", "spec.config(max_completion_length=64)")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "train_loss" in done.stdout


def test_there_are_two() -> None:
    assert len(BLOCKS) == 2
