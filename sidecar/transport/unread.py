"""What an upstream sent ahead of its reset, and the loop did not read before a write met the reset.

An upstream that does not read a request to its end answers, closes, and resets (RFC 9112 9.6). A write that meets the
reset ends the transport at once, on asyncio and uvloop alike, though the kernel still holds the answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

_READ_BYTES = 256 * 1024


def unread(transport: asyncio.Transport) -> Iterator[bytes]:
    """The pieces that the kernel has left; only within `connection_lost`, where the socket is still open."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return
    while True:
        try:
            data = os.read(sock.fileno(), _READ_BYTES)
        except OSError:  # the reset, or nothing more for now
            return
        if not data:
            return
        yield data
