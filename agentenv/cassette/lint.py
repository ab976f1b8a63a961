"""Looking a cassette over: what is damaged, missing, or should not be in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from msgspec import Struct

from agentenv.cassette.keys import environment_secrets
from agentenv.cassette.shelf import Recording, Shelf, media_of
from agentenv.errors import StoreError
from agentenv.media import MediaStore
from agentenv.types import Text

_LOOKS_SECRET = re.compile(
    r"(?i)\bbearer\s+[a-z0-9._~+/-]{16,}|\bsk-[a-z0-9_-]{16,}|\btvly-[a-z0-9_-]{12,}|\bAKIA[0-9A-Z]{16}\b"
    r"|\b(?:api[_-]?key|access[_-]?token|client[_-]?secret|password)[\"']?\s*[=:]\s*[\"']?[a-z0-9._~+/-]{12,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)


class Problem(Struct, frozen=True):
    """What is wrong with a recording; its `id` is that of the recording."""

    id: int
    tool: str
    what: str


def lint(path: str | os.PathLike[str]) -> Iterator[Problem]:
    """Read every recording of a cassette and say what is wrong: damaged, without its pictures, or with a secret in it.

    Raises:
        UsageError: there is no cassette.
        StoreError: it cannot be opened.
    """
    shelf = Shelf(path, write=False)
    media = MediaStore(roots=(path,), max_bytes=0)
    secrets = environment_secrets()
    try:
        for recording in shelf.all():
            for what in _wrong(recording, media, secrets):
                yield Problem(recording.id, recording.tool, what)
    finally:
        shelf.close()


def _wrong(recording: Recording, media: MediaStore, secrets: list[str]) -> Iterator[str]:
    try:
        result = recording.result
    except StoreError as error:
        yield str(error)
        return
    for name in dict.fromkeys(media_of(result.parts)):
        try:
            media.get(name)
        except StoreError as error:
            yield str(error)
    text = "\n".join([recording.arguments, *(part.text for part in result.parts if isinstance(part, Text))])
    if any(secret in text for secret in secrets):
        yield "it holds the value of an environment variable that is a secret"
    elif found := _LOOKS_SECRET.search(text):
        yield f"it holds what looks like a secret: {found[0][:12]}..."
