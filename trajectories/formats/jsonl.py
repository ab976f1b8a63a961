"""The records as they are, one a line, with their pictures beside; `agentenv.trajectories.load` reads the file back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from agentenv.errors import StoreError, UsageError
from agentenv.trajectories.formats.base import Format, Options, Row, Tally
from agentenv.trajectories.formats.beside import MEDIA
from agentenv.trajectories.media import images, videos
from agentenv.trajectories.salvage import encode
from agentenv.trajectory import Trajectory

if TYPE_CHECKING:
    from agentenv.trajectories.run import Run


class RecordOptions(Options, frozen=True):
    """Options of jsonl.

    Args:
        video: what is taken along of videos. "frames": the frames that policies saw; the record names the files by
            hash. "reference": the files too, so that the records can be exported as references to videos later.
    """

    video: Literal["frames", "reference"] = "frames"


def rows(run: Run, options: RecordOptions, tally: Tally) -> Iterator[Row]:
    """One row a record: its fields."""
    if options.container != "jsonl":
        raise UsageError("the format jsonl has no other container")
    for _, record in run.records():
        names = dict.fromkeys(image.sha256 for image in images(record))
        lost = [name for name in names if not copied(run, name, tally)]
        if lost:
            tally.drop({"media"})
        films = videos(record) if options.video == "reference" else []
        if [name for name in films if not copied(run, name, tally, large=True)]:
            tally.drop({"videos"})
        yield msgspec.json.decode(encode(record))


def copied(run: Run, name: str, tally: Tally, large: bool = False) -> bool:
    """Put a picture or a video where `load` looks for it. Without it the record is still worth having."""
    try:
        data = run.media.large(name) if large else run.media.get(name)
        tally.beside.put(f"{MEDIA}/{name[:2]}/{name}", data)
    except StoreError:
        return False
    return True


FORMAT = Format(
    "jsonl",
    "Complete records of episodes, one JSON object a line.",
    RecordOptions,
    dict.fromkeys(Trajectory.__struct_fields__, "json"),
    {
        "media": "a picture is neither in the run folder nor in this process",
        "videos": "a video file is neither in the run folder nor in this process",
    },
    rows,
)
