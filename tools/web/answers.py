"""What a web server answered, and what went wrong where it did not."""

from __future__ import annotations

from msgspec import Struct
from yarl import URL

from agentenv.errors import ToolError, ToolErrorKind


class FetchError(ToolError):
    """A request that brought nothing. `status` is the server's answer, 0 where there was none."""

    def __init__(self, text: str, kind: ToolErrorKind = ToolErrorKind.FAILED, status: int = 0) -> None:
        self.status = status
        super().__init__(text, kind)

    def __reduce__(self) -> tuple[type[FetchError], tuple[str, ToolErrorKind, int]]:  # type: ignore[override]
        return type(self), (str(self), self.kind, self.status)


class Fetched(Struct, frozen=True):
    """An answer.

    Args:
        url: that gave it, after redirects.
        status: of the last answer.
        headers: names in small letters.
        body: decompressed.
        cut: the body goes on, beyond what was to be read.
    """

    url: URL
    status: int
    headers: dict[str, str]
    body: bytes
    cut: bool = False
