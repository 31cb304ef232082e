"""A connection whose two ends are both this process's: a pair of UNIX sockets, one of which a listener serves.

Nothing of it is seen on the network, and the kernel bounds what waits in it as it does for any other. Between the
loop and the listener's protocol stands what tells of the caller as a connection by the network would: the address
that it comes from, and where it was going. Decides nothing.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

from sidecar.core.request import Asked


def pair() -> tuple[socket.socket, socket.socket]:
    """The caller's end and the listener's.

    Raises:
        OSError: this process may open no more files.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for one in (ours, theirs):
        one.setblocking(False)
    return ours, theirs


class Arriving:
    """The loop's protocol at the listener's end, until there is a transport."""

    __slots__ = ("_asked", "_host", "_protocol")

    def __init__(self, protocol: Any, host: str, asked: Asked | None) -> None:
        """`protocol`: of the listener. `host`: the caller's address. `asked`: where it was going, if that is not the
        listener itself."""
        self._protocol = protocol
        self._host = host
        self._asked = asked

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raw = cast(asyncio.Transport, transport)
        raw.set_protocol(self._protocol)
        self._protocol.connection_made(InProcessTransport(raw, self._host, self._asked))


class InProcessTransport:
    """The loop's transport at the listener's end, with what it cannot know."""

    __slots__ = (
        "_asked", "_host", "_raw", "abort", "can_write_eof", "close", "get_write_buffer_size", "is_closing",
        "pause_reading", "resume_reading", "set_protocol", "set_write_buffer_limits", "write", "write_eof",
        "writelines",
    )  # fmt: skip

    def __init__(self, raw: asyncio.Transport, host: str, asked: Asked | None) -> None:
        self._raw = raw
        self._host = host
        self._asked = asked
        self.write = raw.write
        self.writelines = raw.writelines
        self.pause_reading = raw.pause_reading
        self.resume_reading = raw.resume_reading
        self.set_protocol = raw.set_protocol
        self.get_write_buffer_size = raw.get_write_buffer_size
        self.set_write_buffer_limits = raw.set_write_buffer_limits
        self.can_write_eof = raw.can_write_eof
        self.write_eof = raw.write_eof
        self.is_closing = raw.is_closing
        self.close = raw.close
        self.abort = raw.abort

    def __repr__(self) -> str:
        return f"<InProcessTransport from {self._host}>"

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peername":
            return self._host, 0  # there is no port
        if name == "asked":
            return self._asked
        return self._raw.get_extra_info(name, default)
