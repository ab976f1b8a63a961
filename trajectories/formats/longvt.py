"""Conversations as LongVT's data and lmms-engine hold them: OpenAI-style parts, results of tools in user turns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from agentenv.trajectories.formats.base import Format, Options, Row, Tally
from agentenv.trajectories.formats.conversation import Said, UnfitError, rendered
from agentenv.trajectories.formats.pictures import Pictures, safe
from agentenv.trajectories.formats.trl_sft import unwanted
from agentenv.trajectory import Trajectory
from agentenv.types import Image, Text, Video

if TYPE_CHECKING:
    from agentenv.trajectories.run import Run


class LongvtOptions(Options, frozen=True):
    """Options of longvt.

    Args:
        container: "parquet" holds `messages` as JSON text, since the kinds of parts differ; "jsonl" as it is.
        video: the video of the question is a "reference" to its file, of which the trainer chooses frames by its own
            settings, or "frames", the images that the policy saw. Clips of tools always are images, as in LongVT's own
            data: the trainer's loader knows no windows.
        image_root: put before the paths of files; without it they start at the folder of the export, which is then
            the trainer's `data_folder`.
        min_reward: the least reward of an episode; None takes every one.
        include: endings that are left out otherwise: "masked", "length" and "unscored".
    """

    container: Literal["jsonl", "parquet"] = "parquet"
    video: Literal["reference", "frames"] = "reference"
    image_root: str = ""
    min_reward: float | None = None
    include: tuple[Literal["masked", "length", "unscored"], ...] = ()


def rows(run: Run, options: LongvtOptions, tally: Tally) -> Iterator[Row]:
    """One row an episode, calls and results as the dialect wrote them."""
    reference = Pictures(run.media, tally.beside, "files", options.image_root, "reference")
    for _, record in run.records():
        reason = unwanted(record, options.min_reward, options.include)
        try:
            if reason:
                raise UnfitError(reason)
            with tally.beside.row():
                messages = [_message(said, options.video, reference) for said in rendered(record)]
        except UnfitError as unfit:
            tally.skip(record.id, str(unfit))
            continue
        tally.drop(_losses(record, options))
        yield {
            "id": record.id,
            "messages": json.dumps(messages, ensure_ascii=False) if options.container == "parquet" else messages,
            "reward": record.reward,
        }


def _message(said: Said, video: str, files: Pictures) -> Row:
    text = f"<think>\n{said.reasoning}\n</think>\n\n{said.text}" if said.reasoning else said.text
    items: list[Row] = []
    for part in said.parts or (Text(text),):
        if not isinstance(part, Video):
            items.append(_item(part, files))
        elif video == "reference" and not part.of:
            items.append({"type": "video_url", "video_url": {"url": files.source(part)}})
        elif not part.frames:
            raise UnfitError("a video of it comes without frames")
        else:
            items += [_item(piece, files) for piece in part.as_frames()]
    return {"role": said.role, "content": [item for item in items if item.get("text") != ""]}


def _item(part: object, files: Pictures) -> Row:
    if isinstance(part, Image):
        return {"type": "image_url", "image_url": {"url": files.address(part)}}
    return {"type": "text", "text": safe(getattr(part, "text", ""))}


def _losses(record: Trajectory, options: LongvtOptions) -> Iterator[str]:
    nodes = [record.nodes[step] for step in record.indices()]
    if any(node.tokens for node in nodes):
        yield "tokens"
    if len(nodes) < len(record.nodes):
        yield "branches"
    if options.video == "reference" and any(
        isinstance(part, Video) and part.frames and not part.of for node in nodes for part in node.message.parts
    ):
        yield "frames"


FORMAT = Format(
    "longvt",
    "Conversations as LongVT's data and lmms-engine hold them: text, image_url and video_url parts.",
    LongvtOptions,
    {"id": "string", "messages": "string", "reward": "float"},
    {
        "tokens": "text is rendered and tokenised again by the trainer",
        "branches": "only the path to the last message is exported",
        "frames": "the trainer chooses frames of the question's video itself; video='frames' writes the policy's",
    },
    rows,
)
