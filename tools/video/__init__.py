"""Video tools: clips of a window, frames at times, what videos there are. Made by factories that declare every setting.

    clip = video_clip_tool(ClipSettings(Sampling(max_frames=16), timestamps="before"))
    media = EpisodeMedia([put_video(media_store(), Path("talk.mp4"))])
    parts = clip(video="video_1", start=12.0, end=20.0, fps=2.0, frames=None, media=media)

Times are seconds from a video's first frame on, and the frame at a time is the one that a player shows then. Results
are images whose `derived` names the video and the time or, with `result="video"`, one `Video` that holds those frames;
`first_view` gives a prompt's video its frames. Decoding (PyAV, the extra `video`) runs in processes that can be killed;
frames are shared by all episodes of the process.
"""

from __future__ import annotations

from agentenv.tools.video.backends import Backend
from agentenv.tools.video.clip import (
    LONGVT,
    ClipSettings,
    VideoNaming,
    video_clip_tool,
    video_frames_tool,
    video_info_tool,
)
from agentenv.tools.video.container import Limits, VideoInfo
from agentenv.tools.video.pool import DecodePool, decode_pool
from agentenv.tools.video.reader import Frame, VideoReader, put_video
from agentenv.tools.video.sampling import Budget, Sampling, qwen_indices
from agentenv.tools.video.shape import Shape
from agentenv.tools.video.view import first_view
from agentenv.tools.video.zoom import video_zoom_tool

__all__ = [
    "LONGVT",
    "Backend",
    "Budget",
    "ClipSettings",
    "DecodePool",
    "Frame",
    "Limits",
    "Sampling",
    "Shape",
    "VideoInfo",
    "VideoNaming",
    "VideoReader",
    "decode_pool",
    "first_view",
    "put_video",
    "qwen_indices",
    "video_clip_tool",
    "video_frames_tool",
    "video_info_tool",
    "video_zoom_tool",
]
