"""Which frames of a window are looked at."""

from __future__ import annotations

import importlib.util
import math
import random
import sys
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import ConfigError, ToolError, UsageError
from agentenv.tools.image import QWEN25_VL, Output
from agentenv.tools.video import Budget, Sampling, qwen_indices


def test_a_rate_steps_and_a_number_spreads() -> None:
    assert Sampling().times(10, 14) == (10, 11, 12, 13)
    assert Sampling().times(10, 14.5) == (10, 11, 12, 13, 14)
    assert Sampling().times(10, 12, fps=2) == (10, 10.5, 11, 11.5)
    assert Sampling().times(10, 14, frames=2) == (11, 13)
    assert Sampling(max_frames=4).times(0, 100) == (12.5, 37.5, 62.5, 87.5)
    assert Sampling(min_frames=4).times(0, 2) == (0.25, 0.75, 1.25, 1.75)
    assert len(Sampling(even=True).times(0, 5)) == 4
    assert len(Sampling(even=True).times(0, 1)) == 2
    assert Sampling().times(3.0, 3.1) == (3.0,)


@given(
    st.floats(0, 1e5),
    st.floats(0.01, 1e5),
    st.floats(0.01, 100) | st.none(),
    st.integers(1, 64) | st.none(),
    st.booleans(),
)
def test_times_lie_in_the_window_in_order_and_within_the_budget(
    start: float, length: float, fps: float | None, frames: int | None, even: bool
) -> None:
    times = Sampling(even=even).times(start, start + length, fps, frames)
    assert 1 <= len(times) <= 32
    assert list(times) == sorted(times)
    assert start <= times[0]
    assert times[-1] <= start + length
    assert not even or len(times) % 2 == 0


def test_windows_are_clamped_or_refused() -> None:
    clamp, strict = Sampling(), Sampling(outside="error")
    assert clamp.window(-3, 99, 29.97) == (0, 29.97)
    assert clamp.window(3, 99, 0.0) == (3, 99)  # a file that does not say how long it is
    assert strict.window(0, 29.97, 29.97) == (0, 29.97)
    for start, end, words in (
        (0, 30, "leaves the video"),
        (-1, 2, "leaves"),
        (5, 5, "empty"),
        (30, 40, "ends at 29.97"),
    ):
        with pytest.raises(ToolError, match=words):
            strict.window(start, end, 29.97)
    demo = Sampling(outside="clamp_end")
    assert demo.window(2, 30, 29.97) == (2, 29.97)
    with pytest.raises(ToolError, match="leaves"):
        demo.window(-1, 2, 29.97)
    with pytest.raises(ToolError, match="before the start"):
        clamp.window(-3, -1, 10)


def test_settings_that_make_no_sense_are_refused() -> None:
    for settings in ({"fps": 0.0}, {"min_frames": 9, "max_frames": 3}, {"even": True, "max_frames": 1}):
        with pytest.raises(ConfigError):
            Sampling(**settings)


def test_known_indices() -> None:
    assert qwen_indices(300, 30.0, 0.0, 3.0, fps=1, min_frames=1, max_frames=128) == [0, 90]
    assert qwen_indices(300, 30.0, 2.0, 6.0, fps=1, min_frames=1, max_frames=128) == [60, 100, 140, 180]
    assert qwen_indices(9000, 30.0, 0.0, 129.0, fps=1, min_frames=1, max_frames=128)[-1] == 3870
    assert qwen_indices(100, 25.0, frames=5) == [0, 33, 66, 99]
    for bad in ({"start": 3.0, "end": 3.01}, {"frames": 500}, {"frames": 0}):
        with pytest.raises(UsageError):
            qwen_indices(100, 25.0, **bad)


def published(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package's own module; what it imports of torchvision has no part in choosing frames and may be absent."""
    if importlib.util.find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.io", "torchvision.transforms"):
            monkeypatch.setitem(sys.modules, name, MagicMock())
    module = pytest.importorskip("qwen_vl_utils.vision_process", reason="compares with the package qwen-vl-utils")
    for name in [name for name in sys.modules if name.startswith("qwen_vl_utils")]:
        monkeypatch.delitem(sys.modules, name)  # no other test is to meet it like this
    return module


def test_indices_are_those_of_qwen_vl_utils(monkeypatch: pytest.MonkeyPatch) -> None:
    torch: Any = pytest.importorskip("torch", reason="the package qwen-vl-utils computes with torch")
    theirs = published(monkeypatch)
    rng = random.Random(0)
    compared = 0
    for _ in range(3000):
        total, rate = rng.randint(2, 200_000), rng.choice([8.24, 23.976, 24.0, 25.0, 29.97, 30.0, 60.0])
        start, end = sorted(rng.uniform(-1, total / rate + 1) for _ in range(2))
        ele: dict[str, Any] = {"video_start": start, "video_end": end}
        options: dict[str, Any] = {"start": start, "end": end}
        if rng.random() < 0.3:
            ele["nframes"] = options["frames"] = rng.randint(1, 200)
        else:
            low, high = rng.randint(1, 8), rng.randint(8, 768)
            fps = rng.choice([0.5, 1.0, 2.0, 3.3])
            ele |= {"fps": fps, "min_frames": low, "max_frames": high}
            options |= {"fps": fps, "min_frames": low, "max_frames": high}
        try:
            first, last, held = theirs.calculate_video_frame_range(ele, total, rate)
            count = theirs.smart_nframes(ele, total_frames=held, video_fps=rate)
        except ValueError:
            with pytest.raises(UsageError):
                qwen_indices(total, rate, **options)
            continue
        expected = torch.linspace(first, last, count).round().long().tolist()
        assert qwen_indices(total, rate, **options) == expected
        compared += 1
    assert compared > 1500


@given(st.integers(16, 4000), st.integers(16, 4000), st.integers(1, 128))
def test_frames_keep_to_the_budget_of_all(width: int, height: int, count: int) -> None:
    budget = Budget(Output(max_pixels=200_000, max_upscale=1.0), 2_000_000)
    w, h = budget.size(width, height, count)
    assert w * h * count <= 2_000_000
    assert w * h <= 200_000
    assert w <= max(1, math.ceil(width))
    assert h <= height


def test_a_models_rule_gives_the_size() -> None:
    assert Budget(Output(resize=QWEN25_VL), 100 * 784).size(1280, 720, 1) == (364, 196)
    assert Budget(Output(resize=QWEN25_VL), 10**9).size(1280, 720, 1) == (1288, 728)
