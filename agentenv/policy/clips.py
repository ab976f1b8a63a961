"""Clips for a local model's processor: their frames as one array, and when each is shown.

Video processors of transformers need torchvision, where images are done with Pillow alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from agentenv.errors import ConfigError, MissingExtraError
from agentenv.policy.wire import clip_metadata
from agentenv.types import Video

GRID = "video_grid_thw"
METADATA = "video_metadata"


def need_torchvision() -> None:
    """See that video processors can work here.

    Raises:
        MissingExtraError: torchvision is not installed.
        ConfigError: it is, but does not fit the installed torch.
    """
    try:
        import_module("torchvision")
    except ImportError:
        raise MissingExtraError("torchvision", "local-video", "showing a local model clips as videos") from None
    except Exception as error:  # a build for another torch fails while it registers its operators
        raise ConfigError(f"torchvision does not work with this torch ({error}); take video='frames'") from None


def need_video_processor(processor: Any, name: str) -> Any:
    """The video processor of a processor.

    Raises:
        ConfigError: it has none, or names no token for videos.
        MissingExtraError: it has none since torchvision is not installed.
    """
    own = getattr(processor, "video_processor", None)
    if own is None:
        need_torchvision()
        raise ConfigError(f"the processor of {name} takes no videos; take video='frames'")
    if not getattr(processor, "video_token", None):
        raise ConfigError(f"the processor of {name} names no video token; take video='frames'")
    return own


def stacked(pictures: Sequence[Any]) -> Any:
    """Decoded frames of one size as an array of shape (frames, height, width, 3), 8-bit RGB."""
    import numpy as np

    return np.stack([np.asarray(picture) for picture in pictures])


def call_options(clips: Sequence[Video], arrays: Sequence[Any]) -> dict[str, Any]:
    """What a processor is called with so that it takes the frames as they are, with their own times."""
    if not clips:
        return {}
    from transformers.video_utils import VideoMetadata

    about = [VideoMetadata(**clip_metadata(clip)) for clip in clips]
    return {"videos": list(arrays), METADATA: about, "do_sample_frames": False, "return_metadata": True}
