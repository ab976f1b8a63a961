"""What the host reads from a process that may be in a stranger's hands: not more, and not for longer, than it said."""

from __future__ import annotations

import socket
import time

import pytest

from agentenv.tools._child import exactly


def test_bytes_that_come_after_the_deadline_are_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"0123456789")
        with pytest.raises(TimeoutError):
            exactly(ours, 10, 10, time.monotonic())


def test_more_than_was_said_is_not_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(EOFError):
            exactly(ours, 11, 10, time.monotonic() + 1)
        theirs.sendall(b"0123456789")
        assert exactly(ours, 10, 10, time.monotonic() + 1) == b"0123456789"
