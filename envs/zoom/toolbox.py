"""Image tools by name, all in one coordinate frame, and the steps that an expert takes with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from agentenv.dialects import neutralise
from agentenv.errors import UnknownNameError, UsageError
from agentenv.media import decode_cache, media_store
from agentenv.spec import settings
from agentenv.tool import Tool
from agentenv.tools.image import (
    CropRules,
    Frame,
    Output,
    first_view,
    image_draw_tool,
    image_grid_tool,
    image_info_tool,
    image_rotate_tool,
    image_zoom_tool,
    view_of,
)
from agentenv.types import Image, Part, Task, Text

Rules = CropRules | Mapping[str, Any] | None
Shown = Output | Mapping[str, Any] | None
Steps = Callable[[Task, Image], list[dict[str, Any]]]

NAMES = ("image_zoom", "image_rotate", "image_grid", "image_info", "image_draw")
ZOOM_RULES = CropRules(min_side=28, max_aspect=100.0)
ZOOM_OUTPUT = Output(min_pixels=160_000, max_pixels=1_000_000)
_CONTEXT = 0.3
_LEAST_ROOM = 0.002
_THOUGHTS = (
    "The details are too small to read in this view; I zoom into the place where they are.",
    "One more place has to be looked at from close by.",
)


def image_tools(names: Iterable[str], frame: Frame, crop: Rules = None, output: Shown = None) -> list[Tool]:
    """Image tools.

    Args:
        names: which, out of `NAMES`.
        frame: the coordinate frame of all boxes and points.
        crop: what a box must be, and how it is widened; sides of at least 28 px by default.
        output: size and format of what is shown; 0.16 to 1 megapixel by default.

    Raises:
        UnknownNameError: there is no such tool; the nearest is named.
        ConfigError: a setting that does not exist, or of the wrong type.
    """
    rules, shown = settings(CropRules, crop, ZOOM_RULES), settings(Output, output, ZOOM_OUTPUT)
    make: dict[str, Callable[[], Tool]] = {
        "image_zoom": lambda: image_zoom_tool(frame, crop=rules, output=shown),
        "image_rotate": lambda: image_rotate_tool(output=shown),
        "image_grid": lambda: image_grid_tool(frame, output=shown),
        "image_info": lambda: image_info_tool(frame),
        "image_draw": lambda: image_draw_tool(frame, output=shown),
    }
    chosen = list(names)
    for name in chosen:
        if name not in make:
            raise UnknownNameError("image tool", name, make)
    return [make[name]() for name in chosen]


def zoom_steps(
    task: Task, image: Image, frame: Frame, *, tool: str = "image_zoom", box: str = "bbox_2d", which: str = "image"
) -> list[dict[str, Any]]:
    """What an expert does: one zoom for each evidence box, with some room around it.

    Args:
        task: its `evidence["boxes"]` are in pixels of the original.
        image: the original or a view of it, as the policy is shown it.
        frame: the frame in which boxes are written.
        tool: name of the zoom tool.
        box: its argument for the box.
        which: its argument for the image, "" where it has none.

    Returns:
        Steps that the `reference` policy plays: {"tool", "arguments", "thought"}.
    """
    view, shown = view_of(image), (image.width, image.height)
    handle = task.evidence.get("image", "image_1")
    steps = []
    for number, target in enumerate(task.evidence.get("boxes") or ()):
        numbers = frame.written(_roomy(target, view.size), view, shown)
        arguments = {box: numbers, **({which: handle} if which else {})}
        steps.append({"tool": tool, "arguments": arguments, "thought": _THOUGHTS[min(number, 1)]})
    return steps


def _roomy(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box with room on every side, within the picture."""
    room = _CONTEXT * min(box[2] - box[0], box[3] - box[1]) + _LEAST_ROOM * max(size)
    left, top = max(0, round(box[0] - room)), max(0, round(box[1] - room))
    return left, top, min(size[0], round(box[2] + room)), min(size[1], round(box[3] + room))


def as_shown(task: Task, view: Output | None, steps: Steps | None) -> Task:
    """The task as it is asked: images reduced and named, control text made harmless, and the expert's steps.

    Args:
        task: its prompt holds originals.
        view: size of the first views; None for the pictures as they are.
        steps: makes the steps of a task that has evidence boxes and no steps yet, given the image that they lie in;
            None where the policy cannot take any.

    Raises:
        UsageError: the task has no image.
    """
    parts: list[Part] = []
    images: list[Image] = []
    for part in task.prompt:
        if isinstance(part, Image):
            shown = part if view is None else first_view(media_store(), decode_cache(), part, view)
            images.append(replace(shown, handle=f"image_{len(images) + 1}"))
            parts += [images[-1], Text(_caption(part, images[-1]))]
        else:
            parts.append(Text(neutralise(part.text)[0]) if isinstance(part, Text) else part)
    if not images:
        raise UsageError(f"task {task.id!r} has no image to look at")
    evidence = task.evidence
    if steps is not None and evidence.get("boxes") and "steps" not in evidence:
        named = {image.handle: image for image in images}
        target = named.get(str(evidence.get("image", "image_1")), images[0])
        evidence = {**evidence, "steps": steps(task, target)}
    return replace(task, prompt=tuple(parts), evidence=evidence)


def _caption(original: Image, shown: Image) -> str:
    size = f"{original.width} x {original.height} pixels"
    if (original.width, original.height) == (shown.width, shown.height):
        return f"\n{shown.handle}: {size}.\n"
    return f"\n{shown.handle}: {size}, shown reduced to {shown.width} x {shown.height}.\n"
