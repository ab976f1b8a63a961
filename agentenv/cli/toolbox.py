"""The tools that `agentenv chat --tools` knows by name, and the files that a person gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from agentenv.errors import DataError, UnknownNameError, UsageError
from agentenv.registry import load_object
from agentenv.tool import Tool
from agentenv.types import Image, Part, TableSource, Task, Text, Video

if TYPE_CHECKING:
    from agentenv.env import Bind


class Named(Struct, frozen=True):
    """A tool that has a name.

    Args:
        about: what it does, in a line.
        needs: the file that it works on, "table", "image" or "video"; "" where it needs none.
        extra: the extra that it needs.
    """

    about: str
    needs: str
    extra: str


TOOLS = {
    "table_query": Named("SQL over the tables", "table", "table"),
    "table_schema": Named("columns, types and sizes of the tables", "table", "table"),
    "table_head": Named("the first rows of a table", "table", "table"),
    "table_values": Named("the distinct values of a column", "table", "table"),
    "table_python": Named("Python without files and network, with sql()", "table", "table"),
    "table_pandas": Named("pandas in a process without rights", "table", "table"),
    "image_zoom": Named("a part of a picture, from the original", "image", "image"),
    "image_rotate": Named("a picture, turned", "image", "image"),
    "image_grid": Named("a picture under a grid with numbers", "image", "image"),
    "image_draw": Named("boxes and points on a picture", "image", "image"),
    "image_info": Named("which pictures there are, and how large", "image", "image"),
    "image_search": Named("what a picture or a part of it shows, by pictures like it", "image", "search"),
    "video_clip": Named("frames of a window of a video", "video", "video"),
    "video_frames": Named("frames at given times", "video", "video"),
    "video_zoom": Named("a part of a frame", "video", "video"),
    "video_info": Named("which videos there are, and how long", "video", "video"),
    "web_search": Named("search a corpus, or the web by a live engine", "", "search"),
    "web_fetch": Named("open a page that a search has found", "", "search"),
}
"""The tools by name."""

EMBEDDED = "embedded"
DEFAULTS = {
    "table": ("table_query", "table_schema", "table_head", "table_values", "table_python"),
    "image": ("image_zoom",),
    "video": ("video_clip",),
    "corpus": ("web_search", "web_fetch"),
}
"""What an agent has where no tools are named, by what was given."""
_EXCERPT, _VIEW = 240, 1024


def make_tools(
    names: Iterable[str],
    *,
    corpus: str = EMBEDDED,
    corpus_columns: Mapping[str, Any] | None = None,
    pictures: str = EMBEDDED,
    frame: str = "relative_1000",
    k: int = 5,
) -> list[Tool]:
    """Tools by name, or by module:attr.

    Args:
        names: out of `TOOLS`, or module:attr of a `Tool`.
        corpus: what web_search and web_fetch work on: "embedded", a file of documents, "live:NAME" or "live:NAME:URL".
        corpus_columns: of a file of documents.
        pictures: what image_search searches: "embedded", "emblems", or a file of pictures with captions.
        frame: the coordinate frame of all boxes.
        k: results of a search.

    Raises:
        UsageError: there is no such tool, corpus or frame, or a corpus is given and no tool searches it.
        MissingExtraError: a tool needs an extra that is not installed.
    """
    chosen = list(names)
    for name in chosen:
        if ":" not in name and name not in TOOLS:
            raise UnknownNameError("tool", name, TOOLS)
    web = [name for name in chosen if name in DEFAULTS["corpus"]]
    if corpus != EMBEDDED and not web:
        raise UsageError("a corpus is what web_search and web_fetch work on, and neither is among the tools")
    made: dict[str, Tool] = {}
    sights = [name for name in chosen if name.startswith(("image_", "web_")) and name in TOOLS]
    if sights:
        from agentenv.envs.mm_search import sight_tools
        from agentenv.envs.search.sources import as_retriever
        from agentenv.tools.image import Frame

        found = as_retriever(corpus, columns=corpus_columns) if web else None
        made |= _by_name(sight_tools(sights, Frame.of(frame), found, pictures, k=k, shown=_EXCERPT, format="plain"))
    films = [name for name in chosen if name.startswith("video_") and name in TOOLS]
    if films:
        from agentenv.envs.video.toolbox import video_tools

        made |= _by_name(video_tools(films, frame=frame))
    return [made.get(name) or _loaded(name) for name in chosen]


def _by_name(tools: Iterable[Tool]) -> dict[str, Tool]:
    return {tool.name: tool for tool in tools}


def _loaded(name: str) -> Tool:
    found = load_object(name if ":" in name else f"agentenv.tools.table:{name}")
    if not isinstance(found, Tool):
        raise UnknownNameError("tool", name, TOOLS)
    return found


def binding(tools: Iterable[Tool]) -> Bind | None:
    """What these tools are bound to: a question's tables, pictures and videos.

    Raises:
        UsageError: a tool is bound to something else, which only an environment of its own can make.
    """
    bound = {name: tool.name for tool in tools for name in tool.bound}
    for name, tool in bound.items():
        if name not in ("tables", "media"):
            raise UsageError(f"{tool} is bound to {name!r}, which only an environment can give it: see --env")
    if not bound:
        return None

    def bind(task: Task) -> Mapping[str, Any]:
        made: dict[str, Any] = {}
        if "tables" in bound:
            from agentenv.tools.table import TableSession

            made["tables"] = TableSession(task.tables)
        if "media" in bound:
            from agentenv.envs.video.view import episode_media

            made["media"] = episode_media(task)
        return made

    return bind


def missing_file(tools: Iterable[Tool], given: Task) -> str:
    """What must be given beside these tools, in a sentence for a person; "" where nothing is missing."""
    media = [part for part in given.prompt if isinstance(part, (Image, Video))]
    for tool in tools:
        needs = TOOLS[tool.name].needs if tool.name in TOOLS else ""
        if "tables" in tool.bound and not given.tables:
            return f"{tool.name} works on tables: give some, with --table FILE"
        if "media" not in tool.bound:
            continue
        if needs == "video" and not any(isinstance(part, Video) for part in media):
            return f"{tool.name} works on videos: give some, with --video FILE"
        if not media:
            how = "--image FILE" if needs == "image" else "--image FILE or --video FILE"
            return f"{tool.name} works on pictures{'' if needs == 'image' else ' or videos'}: give some, with {how}"
    return ""


# -- files -------------------------------------------------------------------------------------------------------------


def attached(tables: Sequence[str], images: Sequence[str], videos: Sequence[str]) -> Task:
    """A person's files as the opening of a question: tables with an overview of them, pictures and videos with a first
    view.

    Raises:
        UsageError: there is no such file; the nearest is named.
        DataError: a file cannot be read.
        MissingExtraError: an extra is not installed that reads it.
    """
    pictures = tuple(_picture(_file(name)) for name in images)
    films = tuple(_film(_file(name)) for name in videos)
    task = Task("chat", (*pictures, *films), tables=_tables(tables))
    if pictures:
        from agentenv.envs.zoom.toolbox import as_shown
        from agentenv.tools.image import Output

        task = as_shown(task, Output(max_side=_VIEW, max_pixels=_VIEW**2), None)
    if films:
        from agentenv.envs.video.view import FirstView, show_task

        task = show_task(task, FirstView())
    return _with_overview(task) if task.tables else task


def _with_overview(task: Task) -> Task:
    from agentenv.envs.table.overview import overview

    told: Part = Text(overview(task.tables, "schema"))
    return replace(task, prompt=(*task.prompt, told))


def _file(name: str) -> Path:
    from agentenv.task import existing

    path = existing(Path(name).expanduser())
    if path.is_dir():
        raise UsageError(f"{name} is a folder; give a file")
    return path


def _tables(files: Sequence[str]) -> tuple[TableSource, ...]:
    if not files:
        return ()
    from agentenv.tools.table import load_tables

    return tuple(source for name in files for source in load_tables(_file(name)))


def _picture(path: Path) -> Image:
    from agentenv.media import media_store

    try:
        return media_store().put(path.read_bytes(), verify=True)
    except DataError as error:
        raise DataError(error.why, str(path)) from None


def _film(path: Path) -> Video:
    from agentenv.media import media_store
    from agentenv.tools.video import put_video

    try:
        return put_video(media_store(), path)
    except DataError as error:
        raise DataError(error.why, str(path)) from None
