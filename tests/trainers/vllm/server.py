"""A real vLLM server on loopback, on the CPU."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPERATORS = """
try:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
except ImportError:
    pass
"""
"""torchvision's wheels are built for GPUs: without one, operators that nothing here calls must at least be declared."""

FLAGS = ("--enable-scale-out", "--logprobs-mode", "processed_logprobs")


@contextlib.contextmanager
def vllm_server(model: Path, name: str, log: Path, *more: str, declare: Path | None = None) -> Iterator[str]:
    """The address of a server of `model`; it is ended on leaving."""
    port = free_port()
    with vllm_process(model, name, log, *more, port=port, declare=declare):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def vllm_process(
    model: Path, name: str, log: Path, *more: str, port: int, declare: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The process of a server of `model` that answers; it is ended on leaving, with those that it started."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--served-model-name", name, "--dtype", "float32", "--max-model-len", "2048"]
    command += ["--max-num-seqs", "8", "--enforce-eager", *more]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    env |= {"OMP_NUM_THREADS": "2", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if declare is not None:
        (declare / "sitecustomize.py").write_text(OPERATORS)
        env["PYTHONPATH"] = os.pathsep.join((str(declare), str(Path(sys.prefix) / "torchvision")))
    opened: dict[str, Any] = {"env": env, "stderr": subprocess.STDOUT, "start_new_session": True}
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, **opened) as process:
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", log)
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    ends = time.monotonic() + 900
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(1)
    raise RuntimeError(f"vLLM did not start: ...{log.read_text(errors='replace')[-3000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
