"""Connecting from an address of one's choice, with that address known before the other side can see it.

By the addresses that connections leave from, one that comes back to this very process is known: a loop, as where the
rules of an interception do not leave out what the sidecar sends itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable

Place = tuple[str, int]

TO_POD = {socket.AF_INET: "127.0.0.6", socket.AF_INET6: "::6"}
"""What connections to the pod itself leave from: by it the rules of an interception leave them out."""


async def dial(
    loop: asyncio.AbstractEventLoop,
    host: str,
    port: int,
    *,
    is_to_pod: bool = False,
    buffer_bytes: int | None = None,
    on_bound: Callable[[Place], None] | None = None,
) -> socket.socket:
    """A connected socket. `on_bound` hears the address that it leaves from before anybody else can see it.

    `is_to_pod`: leave from the address that stands for calls to the pod itself, if this namespace has it.
    `buffer_bytes`: of the receive buffer from the start: what it once has announced it must take.

    Raises:
        OSError: nobody answers there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        if is_to_pod:
            with contextlib.suppress(OSError):
                sock.bind((TO_POD[family], 0))
        result = sock.connect_ex((host, port))
        if result not in (0, errno.EINPROGRESS):
            raise OSError(result, os.strerror(result))
        if on_bound is not None:
            name = sock.getsockname()
            on_bound((name[0], name[1]))
        if result:
            await loop.sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock
