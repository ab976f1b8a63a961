"""Pictures of the open web, which go through the checks that all pictures go through."""

from __future__ import annotations

import asyncio

from agentenv.errors import DataError, ToolError
from agentenv.media import MediaStore, media_store
from agentenv.tools.web.answers import FetchError
from agentenv.tools.web.client import WebClient
from agentenv.types import Image

MAX_BYTES = 20 << 20


async def fetch_picture(client: WebClient, url: str, store: MediaStore | None = None) -> Image:
    """Fetch a picture, decode it once, and keep it in the media store.

    Args:
        client: asks for it.
        url: its address, which nobody vouches for.
        store: where it is kept; the process's store by default.

    Returns:
        The picture by reference, without a handle.

    Raises:
        ToolError: as `WebClient.get`; of kind `failed`: it is no picture of a known kind, is damaged or too large.
    """
    answer = await client.get(url, headers={"Accept": "image/*"}, max_bytes=MAX_BYTES)
    if answer.status != 200:
        text = f"{answer.url.host} does not give this picture: status {answer.status}."
        raise FetchError(text, status=answer.status)
    if answer.cut:
        raise ToolError(f"This picture has more than {MAX_BYTES >> 20} MB.")
    mime = answer.headers.get("content-type", "")[:80]
    try:
        return await asyncio.to_thread((store or media_store()).put, answer.body, mime or None, verify=True)
    except DataError as error:
        raise ToolError(f"This address does not hold a picture that can be shown: {error}.") from None
