"""Conversations in the messages of Qwen-VL's utilities, whose trainers read videos as such."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from agentenv.errors import UsageError
from agentenv.trajectories.formats.base import Format, Row, Tally
from agentenv.trajectories.formats.pictures import Pictures, VideoForm
from agentenv.trajectories.formats.trl_sft import FORMAT as TRL
from agentenv.trajectories.formats.trl_sft import SftOptions, conversations

if TYPE_CHECKING:
    from agentenv.trajectories.run import Run


class QwenOptions(SftOptions, frozen=True):
    """Options of qwen-messages: those of trl-sft.

    Args:
        video: "reference" by default. A clip is then {"type": "video", "video": path, "video_start", "video_end",
            "nframes", "resized_height", "resized_width"}; the trainer chooses the frames in the window. "list" names
            the frames that the policy saw: {"type": "video", "video": [paths], "sample_fps"}. Both are what
            `qwen_vl_utils.process_vision_info` reads. "frames" writes images. Before a video stands the window that it
            spans, where the policy was shown times.
    """

    video: VideoForm = "reference"


def rows(run: Run, options: QwenOptions, tally: Tally) -> Iterator[Row]:
    """One row an episode. Content is always a list of parts; the tools stand in a column of their own."""
    if options.images == "column":
        raise UsageError('format qwen-messages: images="column" is of trl-sft; take "files" or "uri"')
    pictures = Pictures(run.media, tally.beside, options.images, options.image_root, options.video)
    yield from conversations(run, options, tally, pictures, trl=False)


FORMAT = Format(
    "qwen-messages",
    "Conversations in the messages of Qwen-VL's utilities, with videos by file and window, or by their frames.",
    QwenOptions,
    TRL.columns,
    TRL.drops,
    rows,
)
