"""Batches as torch tensors, and pictures as a processor makes them. The only file of the batches that needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentenv.errors import MissingExtraError, UsageError
from agentenv.media import decode_cache, media_store
from agentenv.trajectories.grpo.batch import Batch
from agentenv.types import MediaSpan

_ARRAYS = (
    *("input_ids", "attention_mask", "response_mask", "logprobs", "advantages", "rewards", "position_ids"),
    *("segments", "parents", "predictors", "sources", "versions"),
)


def tensors(batch: Batch, device: Any = None, *, attention: bool = False) -> dict[str, Any]:
    """All arrays of a batch as torch tensors, those of the media beside them, under the names that they have there.

    Without a device they share the arrays' memory. With `attention` the mask of `Batch.attention` is among them.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "local", "a batch of tensors") from None
    arrays = {name: getattr(batch, name) for name in _ARRAYS} | batch.tensors
    if attention:
        arrays["attention"] = batch.attention()
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in arrays.items()}


class Pictures:
    """Gives the tensors of pictures as a model's own image processor makes them; `pixels` of `batch`.

    Args:
        processor: with an `image_processor` of the Qwen-VL kind, which makes rows of patches and a grid.
        media: gives a picture's bytes by its SHA-256, for instance `run.media.get`; by default the process's store.
    """

    def __init__(self, processor: Any, media: Callable[[str], bytes] | None = None) -> None:
        self._processor = getattr(processor, "image_processor", processor)
        self._load = media or media_store().get

    def __call__(self, span: MediaSpan) -> Mapping[str, NDArray[Any]]:
        """Pixels and grid of one picture.

        Raises:
            UsageError: it is a video, or the processor makes another grid than the record holds.
            StoreError: its bytes are nowhere to be found.
        """
        if span.kind != "image":
            raise UsageError(f"{span.kind} {span.sha256[:12]}: only pictures can be batched")
        picture = decode_cache().image(span.sha256, lambda: self._load(span.sha256))
        made = self._processor([picture], return_tensors="np")
        grid = tuple(int(side) for side in made["image_grid_thw"][0])
        if span.grid and grid != span.grid:
            raise UsageError(
                f"picture {span.sha256[:12]} has the grid {grid} here and {span.grid} in the record: the processor is"
                " set otherwise than where the episode was played"
            )
        return {name: np.asarray(values) for name, values in made.items()}
