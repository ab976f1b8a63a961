"""What all tests share: the checkout on the path (for `tests.worlds`), a cache folder, hypothesis without deadlines."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.shell import Shell

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

CACHE = tempfile.mkdtemp(prefix="agentenv-tests-cache-")
os.environ["XDG_CACHE_HOME"] = CACHE  # films are kept there, and not in the cache of whoever runs the tests
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)

settings.register_profile("agentenv", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("agentenv")


@pytest.fixture
def sh(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    from tests.shell import Shell

    return Shell(capsys, monkeypatch, tmp_path)
