"""The studies as a picture: `python -m tests.bench.learning_curves runs/learning/*/results.json > learning.svg`.

A panel a study: the rewards of the episodes that GRPO trained on, step by step, as they
were (thin) and as the mean of the last five steps (thick), and success on held-out tasks with its 95 % interval.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, TOP = 380, 220, 46, 34
COLOURS = {"grpo": "#1f6fb2", "grpo-only": "#b2501f"}
HELD_OUT = {"base": (0.0, "#777"), "cold start": (0.0, "#222"), "cold start, then GRPO": (1.0, COLOURS["grpo"]),
            "GRPO without a cold start": (1.0, COLOURS["grpo-only"])}  # fmt: skip
"""Of each model its place along the steps, from first to last, and its colour."""


def smooth(values: Sequence[float], window: int = 5) -> list[float]:
    """The mean of each value and those before it, `window` in all."""
    parts = (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))
    return [sum(part) / len(part) for part in parts]


def panel(results: dict[str, Any], left: int) -> Iterable[str]:
    """The marks of one study, its lower left corner so many pixels from the left."""
    steps = max(map(len, results["curves"].values()), default=1)

    def x(step: float) -> float:
        return left + LEFT + WIDTH * step / steps

    def y(value: float) -> float:
        return TOP + HEIGHT * (1 - value)

    yield f'<text x="{x(0)}" y="{TOP - 14}" font-weight="bold">{results["study"]}</text>'
    for value in (0, 0.25, 0.5, 0.75, 1):
        yield f'<path d="M{x(0)} {y(value)}H{x(steps)}" stroke="#ddd"/>'
        yield f'<text x="{x(0) - 12}" y="{y(value) + 4}" text-anchor="end">{value:g}</text>'
    yield f'<text x="{x(steps)}" y="{TOP + HEIGHT + 18}" text-anchor="end">{steps} steps of GRPO</text>'
    for stage, values in results["curves"].items():
        for numbers, width in ((values, 0.7), (smooth(values), 2.2)):
            points = " ".join(f"{x(i + 0.5):.1f},{y(value):.1f}" for i, value in enumerate(numbers))
            yield f'<polyline points="{points}" fill="none" stroke="{COLOURS[stage]}" stroke-width="{width}"/>'
    for name, (place, colour) in HELD_OUT.items():
        found = results["held_out"][name]
        at = x(steps * place) + (8 if place else -4)
        yield f'<path d="M{at} {y(found["low"]):.1f}V{y(found["high"]):.1f}" stroke="{colour}" stroke-width="1.6"/>'
        yield f'<circle cx="{at}" cy="{y(found["mean"]):.1f}" r="4" fill="{colour}"><title>{name}</title></circle>'


def legend() -> Iterable[str]:
    names = {
        "#777": "base",
        "#222": "cold start",
        COLOURS["grpo"]: "cold start, then GRPO",
        COLOURS["grpo-only"]: "GRPO only",
    }
    for index, (colour, name) in enumerate(names.items()):
        left, top = LEFT + 170 * index, TOP + HEIGHT + 44
        yield f'<circle cx="{left}" cy="{top - 4}" r="4" fill="{colour}"/><text x="{left + 10}" y="{top}">{name}</text>'


def drawn(studies: Sequence[dict[str, Any]]) -> str:
    """An SVG document of the studies' results."""
    width, height = len(studies) * (LEFT + WIDTH + 30), TOP + HEIGHT + 60
    marks = [mark for place, results in enumerate(studies) for mark in panel(results, place * (LEFT + WIDTH + 30))]
    style = 'font-family="sans-serif" font-size="12"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {style}>'
    ground = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([opening, ground, *marks, *legend(), "</svg>\n"])


if __name__ == "__main__":
    sys.stdout.write(drawn([json.loads(Path(path).read_text()) for path in sys.argv[1:]]))
