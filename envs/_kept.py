"""What was made for a task, kept in a folder that several processes may share: a file is there whole, or not at all."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from agentenv.errors import DataError

_ELSE = "give another folder, or none"


def read_kept(file: Path, what: str) -> bytes | None:
    """The bytes of a file, which counts as used; None where there is none.

    Args:
        file: where it would be.
        what: is kept there, said in the error.

    Raises:
        DataError: it cannot be read.
    """
    try:
        data = file.read_bytes()
        with suppress(OSError):  # somebody else's folder can be read and not touched
            os.utime(file)
        return data
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{what} cannot be read: {error.strerror}; {_ELSE}", str(file)) from None


def keep(file: Path, data: bytes, what: str) -> None:
    """Write the whole file under its name, or nothing.

    Args:
        file: where to; its folder is made.
        data: its bytes.
        what: is kept there, said in the error.

    Raises:
        DataError: it cannot be written.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(file)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise DataError(f"{what} cannot be kept: {error.strerror}; {_ELSE}", str(file)) from None
