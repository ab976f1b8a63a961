"""Making tools of settings. What a model must know of the settings stands in the schema that it is shown."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from msgspec import Struct
from pydantic import Field

from agentenv.errors import ConfigError
from agentenv.media import EpisodeMedia
from agentenv.spec import canonical_hash
from agentenv.tool import Bound, Tool
from agentenv.tools.image.boxes import CropRules, Output
from agentenv.tools.image.frames import Frame
from agentenv.tools.image.render import Renderer
from agentenv.tools.image.view import View, view_of
from agentenv.types import Image, Part, Text

_MEDIA: Mapping[str, Any] = {"media": Bound[EpisodeMedia]}

Numbers = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=4, max_length=4)]


class Naming(Struct, frozen=True, forbid_unknown_fields=True):
    """How a tool's arguments are called, and how a call names an image.

    Args:
        box: the argument for the box.
        image: the argument for the image; "" for none: the tool always works on `only`.
        first_index: None where images are named by handle; 0 or 1 where by number, counted from there.
        only: the handle of the image where `image` is "".
        default: the handle, or number, taken where a call names no image; None makes the argument required.
        label: an argument for what the model looks for, recorded and not used; "" for none.
        label_required: the label must be given.
    """

    box: str = "bbox_2d"
    image: str = "image"
    first_index: int | None = None
    only: str = "image_1"
    default: str | int | None = None
    label: str = ""
    label_required: bool = False


def image_zoom_tool(
    frame: str | Frame = "relative_1000",
    *,
    name: str = "image_zoom",
    policy: str = "clamp",
    rounding: str = "nearest",
    seen: str | None = None,
    crop: CropRules | None = None,
    output: Output | None = None,
    naming: Naming | None = None,
    description: str = "",
    text: str | None = None,
    image_first: bool = True,
    timeout: float = 60.0,
) -> Tool:
    """A tool that cuts a region out of an image and shows it larger, from the original's pixels.

    Args:
        frame: the coordinate frame of the box (see `frames`), or a `Frame` with all its settings.
        name: what the model calls the tool.
        policy: boxes that leave the image: "clamp" or "error".
        rounding: of edges to whole pixels: "nearest", "outward" or "truncate".
        seen: for "pixels_shown", the model family whose processor resizes what the model sees.
        crop: padding, least side, greatest aspect ratio.
        output: size, resampling and file format of the result.
        naming: names of the arguments, and how images are named.
        description: what the model reads of the tool; a sentence on the frame is added to it.
        text: what is said beside the crop, with {handle}, {source}, {box}, {width}, {height}, {label}; "" for nothing.
        image_first: the crop stands before the text, or after it.
        timeout: seconds.

    The tool binds `media` (an `EpisodeMedia`).

    Raises:
        UnknownNameError: there is no such frame or model family.
        ConfigError: a setting makes no sense, or `text` holds an unknown field.
    """
    place = _frame(frame, policy, rounding, seen)
    rules, out, names = crop or CropRules(), output or Output(), naming or Naming()
    said = checked_text(_ZOOM_TEXT if text is None else text, "box")

    def run(media: EpisodeMedia, **given: Any) -> list[Part]:
        source = _named(media, names, given)
        view, shown = view_of(source), (source.width, source.height)
        box = rules.apply(place.box(given[names.box], view, shown), place.bounds(view))
        cut = View(view.sha256, view.size, box, view.inner, view.angle, view.cropped, view.marks)
        made = Renderer(media.store, media.cache).show(cut, "crop", out, of=source.handle)
        where = place.written(box, view, shown)
        return _answer(media, made, source, said, image_first, box=where, label=given.get(names.label, ""))

    doc = f"the region as [x1, y1, x2, y2] (left, top, right, bottom), {place.describes}"
    arguments = {names.box: (Numbers, ..., doc), **_naming_arguments(names)}
    return _tool(run, name, description or _ZOOM, arguments, (place, rules, out, names, said, image_first), timeout)


def image_rotate_tool(
    *,
    name: str = "image_rotate",
    direction: str = "clockwise",
    keep_size: bool = False,
    output: Output | None = None,
    naming: Naming | None = None,
    description: str = "",
    text: str | None = None,
    image_first: bool = True,
    timeout: float = 60.0,
) -> Tool:
    """A tool that turns an image by an angle in degrees. The result can be zoomed into at full resolution.

    Args:
        name: what the model calls the tool.
        direction: "clockwise" or "counterclockwise", which the schema states.
        keep_size: cut the corners off instead of growing the picture.
        output: size, resampling and file format of the result.
        naming: names of the arguments, and how images are named.
        description: what the model reads of the tool.
        text: as for `image_zoom_tool`, with {angle} instead of {box}.
        image_first: the picture stands before the text, or after it.
        timeout: seconds.

    Raises:
        ConfigError: there is no such direction, or `text` holds an unknown field.
    """
    if direction not in ("clockwise", "counterclockwise"):
        raise ConfigError(f"image_rotate: {direction!r} is neither clockwise nor counterclockwise")
    out, names, sign = output or Output(), naming or Naming(), 1 if direction == "clockwise" else -1
    said = checked_text(_ROTATE_TEXT if text is None else text, "angle")

    def run(media: EpisodeMedia, angle: float, **given: Any) -> list[Part]:
        source = _named(media, names, given)
        renderer = Renderer(media.store, media.cache)
        turned = renderer.rotated(view_of(source), sign * angle, keep_size)
        made = renderer.show(turned, "rotate", out, of=source.handle)
        return _answer(media, made, source, said, image_first, angle=f"{angle:g}", label=given.get(names.label, ""))

    degrees = Annotated[float, Field(ge=-360, le=360, allow_inf_nan=False)]
    arguments = {"angle": (degrees, ..., f"degrees, {direction}")}
    sentence = description or f"Turn an image {direction} by an angle and look at the result."
    kept = (direction, keep_size, out, names, said, image_first)
    return _tool(run, name, sentence, {**arguments, **_naming_arguments(names)}, kept, timeout)


# -- what image tools share -------------------------------------------------------------------------------------------


def _frame(frame: str | Frame, policy: str, rounding: str, seen: str | None) -> Frame:
    if isinstance(frame, Frame):
        return frame
    return Frame.of(frame, policy=policy, rounding=rounding, seen=seen)


def checked_text(text: str, *fields: str) -> str:
    """A template of what is said beside an image, which may hold these fields and those that all have.

    Raises:
        ConfigError: it holds others.
    """
    known = ("handle", "source", "width", "height", "label", *fields)
    try:
        text.format(**dict.fromkeys(known, 1))
    except (KeyError, ValueError, IndexError) as error:
        names = ", ".join(f"{{{name}}}" for name in known)
        raise ConfigError(f"the text {text!r} may hold {names} ({type(error).__name__}: {error})") from None
    return text


def _named(media: EpisodeMedia, names: Naming, given: dict[str, Any]) -> Image:
    if not names.image:
        return media.resolve(names.only)
    which = given[names.image]
    return media.resolve(which) if names.first_index is None else media.at(which, names.first_index)


def _naming_arguments(names: Naming) -> dict[str, tuple[Any, Any, str]]:
    arguments: dict[str, tuple[Any, Any, str]] = {}
    if names.image:
        if names.first_index is None:
            kind: Any = str
            doc = "which image, by its name, for instance image_1 or observation_1"
        else:
            kind = int
            doc = f"which image, by its number: {names.first_index} is the first, crops are counted in order"
        arguments[names.image] = (kind, ... if names.default is None else names.default, doc)
    if names.label:
        arguments[names.label] = (str, ... if names.label_required else "", "what you are looking for")
    return arguments


def _answer(media: EpisodeMedia, made: Image, source: Image, text: str, image_first: bool, **fields: Any) -> list[Part]:
    image = media.add(made)
    if not text:
        return [image]
    sizes = {"width": image.width, "height": image.height}
    said = Text(text.format(handle=image.handle, source=source.handle, **sizes, **fields))
    return [image, said] if image_first else [said, image]


def _tool(
    run: Callable[..., Any],
    name: str,
    description: str,
    arguments: dict[str, tuple[Any, Any, str]],
    settings: Sequence[Any],
    timeout: float | None,
    *,
    bound: Mapping[str, Any] = _MEDIA,
    deterministic: bool = True,
    **options: Any,
) -> Tool:
    """A tool whose signature is data: names, types, defaults and descriptions of its arguments.

    `bound` are the parameters that the environment fills in, with their annotations; `options` are those of `Tool`.
    """
    hints = {**{key: hint for key, (hint, _, _) in arguments.items()}, **bound}
    empty = inspect.Parameter.empty
    defaults = {key: empty if default is ... else default for key, (_, default, _) in arguments.items()}
    parameters = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(key, empty), annotation=hint)
        for key, hint in hints.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions have it
    run.__annotations__ = hints
    docs = {key: doc for key, (_, _, doc) in arguments.items()} | dict.fromkeys(bound, "bound by the environment")
    lines = "\n".join(f"    {key}: {doc}." for key, doc in docs.items())
    run.__doc__ = f"{description}\n\nArgs:\n{lines}\n"
    run.__name__ = run.__qualname__ = name
    # Settings that the schema does not show still decide what a call gives, so they are part of the version.
    version = f"1+{canonical_hash(list(settings))[:12]}"
    return Tool(run, name=name, timeout=timeout, deterministic=deterministic, version=version, **options)


_ZOOM = "Zoom into a region of an image: it is cut out of the original at full resolution and shown to you."
_ZOOM_TEXT = "{handle}: region {box} of {source}, shown at {width} x {height} pixels."
_ROTATE_TEXT = "{handle}: {source} turned by {angle} degrees, shown at {width} x {height} pixels."
