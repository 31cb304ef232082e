"""A connection within the process tells of its caller as one by the network would, and of its end too."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.request import Asked
from sidecar.transport import in_process, kernel, namespace
from sidecar.transport.intercept import asked_by
from sidecar.transport.link import Link
from tests.support.own_address import own_address


class Heard(asyncio.Protocol):
    """What a listener's protocol is told."""

    def __init__(self) -> None:
        self.data = b""
        self.link: Link | None = None
        self.asked: Asked | None = None
        self.is_lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, in_process.InProcessTransport)
        self.link, self.asked = Link(transport), asked_by(transport)

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost.set()


@pytest.mark.parametrize("asked", [None, Asked("10.0.0.1", 8080, is_original=True)])
async def test_the_listener_hears_where_the_caller_is_and_was_going(asked: Asked | None) -> None:
    loop, heard = asyncio.get_running_loop(), Heard()
    ours, theirs = in_process.pair()
    await loop.connect_accepted_socket(lambda: in_process.Arriving(heard, "10.0.0.1", asked), theirs)
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    assert heard.link is not None
    assert (heard.link.peer, heard.asked) == (("10.0.0.1", 0), asked)
    heard.link.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.write(b"and back")
    writer.close()
    await heard.is_lost.wait()
    assert heard.data == b"and back"


class Standing:
    """A transport as `kernel` asks it."""

    def __init__(self, sock: object) -> None:
        self._sock = sock

    def get_extra_info(self, name: str) -> object:
        return self._sock


def test_an_end_is_seen_behind_bytes_that_nobody_has_read() -> None:
    """As by TCP: one direction that has ended is a caller who has left, both are a connection that is gone."""
    ours, theirs = in_process.pair()
    standing = Standing(theirs)

    def seen() -> tuple[bool, bool]:
        return kernel.has_left(standing), kernel.is_reset(standing)  # type: ignore[arg-type]

    ours.send(b"unread")
    assert seen() == (False, False)
    ours.shutdown(1)
    assert seen() == (True, False)
    ours.close()
    assert seen() == (True, True)
    theirs.close()
    assert seen() == (True, True)


def test_the_pods_addresses_are_those_that_others_reach_it_by() -> None:
    assert namespace.is_pods(own_address())
    assert namespace.is_pods(f"::ffff:{own_address()}")
    for other in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "198.51.100.77", "payments"):
        assert not namespace.is_pods(other)
