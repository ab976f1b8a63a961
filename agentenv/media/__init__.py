"""Media: content-addressed bytes, safe decoding, one decode cache a process, and the handles of an episode.

    store = media_store()
    photo = store.put(Path("photo.jpg").read_bytes())       # -> Image(sha256, mime, width, height)
    media = EpisodeMedia([photo])                            # what an episode may name: "image_1"
    pixels = decode_cache().image(photo.sha256, lambda: store.get(photo.sha256))

Parts (`Image`, `Video`) travel; bytes stay here, named by their SHA-256. Width and height are those of the picture as a
person sees it, after its EXIF orientation. Pillow is imported only when a picture is looked at.
"""

from __future__ import annotations

from agentenv.media.cache import CacheStats, DecodeCache, decode_cache
from agentenv.media.handles import EpisodeMedia
from agentenv.media.pictures import ImageInfo, ImageLimits, decode, probe
from agentenv.media.sheet import contact_sheet
from agentenv.media.store import MediaStore, media_store, use_media_store

__all__ = [
    "CacheStats",
    "DecodeCache",
    "EpisodeMedia",
    "ImageInfo",
    "ImageLimits",
    "MediaStore",
    "contact_sheet",
    "decode",
    "decode_cache",
    "media_store",
    "probe",
    "use_media_store",
]
