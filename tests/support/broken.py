"""Transports that raise where the proxy writes: the shortest way to a mistake of its own in any place.

A real transport never does that, so what raises stands for any error that nobody foresaw: what matters is who hears
of it, and what becomes of the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.raw import RawClient


class Broken(Exception):
    """Raised by a transport that `break_writing` was called for."""


class Transports:
    """All transports that the loop has made since; those of the proxy among them."""

    def __init__(self) -> None:
        self.made: list[asyncio.Transport] = []
        self.writes_left: dict[asyncio.Transport, int] = {}

    def serving(self, client: RawClient) -> asyncio.Transport:
        """The proxy's end of the client's connection."""
        address = client.writer.get_extra_info("sockname")
        (found,) = [one for one in self.made if one.get_extra_info("peername") == address]
        return found

    def break_writing(self, client: RawClient, *, after: int = 0) -> None:
        """From now on it is an error to write to this client; `after` so many writes that still work."""
        self.writes_left[self.serving(client)] = after

    def breakable(self, transport: Any) -> None:
        """Put in the place of its methods such as look first whether writing is broken: whoever uses it may keep
        them."""
        write, writelines = transport.write, transport.writelines

        def write_or_raise(data: bytes) -> None:
            self._take(transport)
            write(data)

        def writelines_or_raise(data: Iterable[bytes]) -> None:
            self._take(transport)
            writelines(data)

        transport.write, transport.writelines = write_or_raise, writelines_or_raise

    def _take(self, transport: asyncio.Transport) -> None:
        left = self.writes_left.get(transport)
        if left is None:
            return
        if not left:
            raise Broken("no byte goes this way")
        self.writes_left[transport] = left - 1


@contextmanager
def transports() -> Iterator[Transports]:
    """Remember what transports the running loop makes within the block. The loop must be asyncio's own."""
    loop: Any = asyncio.get_running_loop()
    make: Callable[..., asyncio.Transport] = loop._make_socket_transport
    seen = Transports()

    def make_and_remember(*args: Any, **options: Any) -> asyncio.Transport:
        transport = make(*args, **options)
        seen.made.append(transport)
        seen.breakable(transport)
        return transport

    loop._make_socket_transport = make_and_remember
    try:
        yield seen
    finally:
        loop._make_socket_transport = make
