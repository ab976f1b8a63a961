"""The image search tool: by a picture, by a region of it, by a phrase that says which region, or by text."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from agentenv.errors import ConfigError, ToolError, ToolErrorKind
from agentenv.media import EpisodeMedia
from agentenv.tool import Bound, Tool
from agentenv.tools.image.boxes import CropRules, Output
from agentenv.tools.image.frames import Frame, PixelBox
from agentenv.tools.image.render import Renderer, encode
from agentenv.tools.image.view import View, view_of
from agentenv.tools.image.zoom import Naming, Numbers, _frame, _named, _naming_arguments, _tool
from agentenv.tools.search.pipeline import Pipeline
from agentenv.tools.search.text_tool import (
    MAX_QUERY,
    OUTSIDE,
    Timeout,
    bindings,
    checked_query,
    identity,
    is_deterministic,
    shared,
    staged,
    timeout_of,
)
from agentenv.tools.search.types import Formatter, Grounder, ImageRetriever, Retriever, Summariser
from agentenv.types import Image, ToolResult

BY = ("image", "box", "phrase", "query")

WHOLE = frozenset({"", "<img>", "image", "the image", "whole image", "the whole image"})
"""Phrases, in lower case, that mean all of the picture. `<img>` is what DeepMMSearch-R1 writes."""

SENT = Output(max_pixels=1_000_000, max_upscale=1.0, quality=90)
_BOX: Any = Numbers
_BOX |= None
_SHOWN = Frame.of("pixels_shown")


def image_search_tool(
    retriever: ImageRetriever,
    *,
    name: str = "image_search",
    by: Sequence[str] = ("image", "box"),
    frame: str | Frame = "relative_1000",
    policy: str = "clamp",
    seen: str | None = None,
    crop: CropRules | None = None,
    naming: Naming | None = None,
    phrase: str = "phrase",
    query: str = "query",
    ground: Grounder | None = None,
    text_retriever: Retriever | None = None,
    pipeline: Pipeline | None = None,
    format: str | Formatter | None = None,
    k: int | None = None,
    summarise: Summariser | None = None,
    question: bool | None = None,
    description: str = "",
    timeout: Timeout = "auto",
    cost: float = 0.0,
    concurrency: int | None = None,
) -> Tool:
    """A tool that searches by a picture of the episode, or by text for pictures.

    Args:
        retriever: finds by a picture: a picture index (`open_images`) or a live engine. The caller closes it.
        name: what the model calls the tool.
        by: what a call may give: "image" (which picture; without it always `naming.only`), "box" (a region of it in the
            declared frame; a call without it means all of the picture), "phrase" (words for a region, which `ground`
            finds; those of `WHOLE` mean all of the picture) and "query" (text, in place of a picture).
        frame: the coordinate frame of the box (see `agentenv.tools.image`), or a `Frame` with all its settings.
        policy: boxes that leave the image: "clamp" or "error".
        seen: for "pixels_shown", the model family whose processor resizes what the model sees.
        crop: padding and least side of a box, grounded ones included.
        naming: names of the arguments for the picture and the box, and how pictures are named.
        phrase: name of the argument for the phrase.
        query: name of the argument for the query.
        ground: see `Grounder`.
        text_retriever: searches by text; `retriever` itself where it can.
        pipeline: the stages after the retriever.
        format: the pipeline's format; "mmsearch" where neither is given.
        k: the pipeline's number of hits.
        summarise: the pipeline's summariser.
        question: as for `web_search_tool`.
        description: what the model reads of the tool; what it can search by is added to it.
        timeout: seconds; None for no limit; "auto" as `timeout_of` has it, 60 at most.
        cost: US dollars a search.
        concurrency: how many searches may run at once in this process.

    The tool binds `media` (an `EpisodeMedia`). What is recorded as `data` holds `image` (hash of the original),
    `handle` and `box` (pixels of the original) beside what `Pipeline.finish` keeps.

    Raises:
        ConfigError: a setting makes no sense.
        UnknownNameError: there is no such frame, model family or format.
    """
    _check(by, ground, text_retriever or retriever)
    names = naming or Naming(default="image_1")
    if "image" not in by:
        names = replace(names, image="")
    region = Region(_frame(frame, policy, "nearest", seen), crop or CropRules(), names, phrase, ground)
    stages = staged(pipeline, format or (None if pipeline else "mmsearch"), k, summarise)
    words: Any = text_retriever or retriever

    async def run(media: EpisodeMedia, **given: Any) -> ToolResult:
        asked = {"question": given.get("question", ""), "store": shared(media.store, retriever, words), "cost": cost}
        if given.get(query) and "query" in by:
            text = checked_query(given[query], MAX_QUERY)
            return await stages.finish(name, text, await words.search(text, stages.wanted), **asked)
        image, view = await region.of(media, given)
        file = await asyncio.to_thread(_file, media, image, view)
        hits = await retriever.search_image(file, stages.wanted)
        data = {"image": view.sha256, "handle": image.handle, "box": list(view.box)}
        return await stages.finish(name, given.get(phrase) or image.handle, hits, data=data, **asked)

    bound: dict[str, Any] = {"media": Bound[EpisodeMedia], **bindings(stages, question)}
    return _tool(
        run,
        name,
        description or f"Find out what a picture shows: search for pictures like it, with their titles. {OUTSIDE}",
        region.arguments(by, query),
        (*identity(retriever), *identity(text_retriever), *by, region.settings, SENT, *stages.settings),
        timeout_of(timeout, 60.0, retriever, text_retriever, ground, stages.rerank, stages.summarise),
        bound=bound,
        deterministic=is_deterministic(retriever, stages, text_retriever, ground),
        cost=cost,
        concurrency=concurrency,
    )


def _check(by: Sequence[str], ground: Grounder | None, words: Any) -> None:
    unknown = [way for way in by if way not in BY]
    if unknown or not by:
        raise ConfigError(f"image search: by is some of {', '.join(BY)}, not {', '.join(unknown) or 'nothing'}")
    if "phrase" in by and ground is None:
        raise ConfigError("image search: a phrase needs `ground`, a function that finds the region that it means")
    if "query" in by and not hasattr(words, "search"):
        raise ConfigError("image search: a query needs a retriever that searches by text (`text_retriever`)")


class Region(Struct, frozen=True):
    """Which region of which picture a call means."""

    place: Frame
    rules: CropRules
    names: Naming
    phrase: str
    ground: Grounder | None

    @property
    def settings(self) -> list[object]:
        """What decides it, as plain data."""
        grounder = getattr(self.ground, "name", "") or getattr(self.ground, "__qualname__", "")
        return [self.place, self.rules, self.names, self.phrase, grounder]

    def arguments(self, by: Sequence[str], query: str) -> dict[str, tuple[Any, Any, str]]:
        """The tool's arguments: type, default and description by name."""
        found = _naming_arguments(self.names)
        if "box" in by:
            doc = f"the region as [x1, y1, x2, y2] (left, top, right, bottom), {self.place.describes}"
            found[self.names.box] = (_BOX, None, f"{doc}; without it all of the picture")
        if "phrase" in by:
            doc = "a few words for what to look for in the picture, which is then cut out; without them all of it"
            found[self.phrase] = (str, "", doc)
        if "query" in by:
            found[query] = (str, "", "search by these words in place of a picture")
        return found

    async def of(self, media: EpisodeMedia, given: dict[str, Any]) -> tuple[Image, View]:
        """The picture and the region of its original.

        Raises:
            ToolError: there is no such picture, the box is not valid, or nothing in it is what the phrase says.
        """
        image = _named(media, self.names, given)
        view, shown = view_of(image), (image.width, image.height)
        words = given.get(self.phrase, "").strip()
        if given.get(self.names.box) is not None:
            box = self.rules.apply(self.place.box(given[self.names.box], view, shown), self.place.bounds(view))
        elif words.lower() not in WHOLE:
            box = await self._grounded(media.store.get(image.sha256), words, image)
        else:
            return image, view
        return image, replace(view, box=box)

    async def _grounded(self, file: bytes, words: str, image: Image) -> PixelBox:
        """The region that a phrase means, in pixels of the original. A box that is none is nothing found."""
        assert self.ground is not None
        found = self.ground(file, words)
        box = await found if inspect.isawaitable(found) else found
        if box is not None:
            left, top, right, bottom = box
            view = view_of(image)
            with suppress(ToolError):  # its words are for whoever wrote the box, and that was not the model
                placed = _SHOWN.box((left, top, right, bottom), view, (image.width, image.height))
                return self.rules.apply(placed, view.box)
        text = f"Nothing in {image.handle} was found that is {words[:100]!r}. Say it in other words."
        raise ToolError(text, ToolErrorKind.FAILED)


def _file(media: EpisodeMedia, image: Image, view: View) -> bytes:
    """The file that is searched with: the picture itself, or its region cut out of the original."""
    if view == view_of(image):
        return media.store.get(image.sha256)
    renderer = Renderer(media.store, media.cache)
    return encode(renderer.picture(view, SENT.size(*view.region), SENT), SENT)
