"""Both ends ours, over a wire of the test's: in whatever pieces bytes come, what is said is heard, whole."""

from __future__ import annotations

import asyncio
import gc
import random
import ssl
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.transport.link import Link
from sidecar.transport.tls.failures import TlsFailed
from sidecar.transport.tls.transport import TlsTransport
from tests.support.certificates import Certificates
from tests.transport.tls.test_transport import Shaking, Sink, serving, trusting

WHOLE = 1 << 30


class Wire:
    """One end of a connection in memory. What is written lies here until it is `carried` to the other end."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.has_end = self.is_closed = self.is_paused = False
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        assert not self.has_end
        self.sent += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_end = True

    def close(self) -> None:
        self.is_closed = self.has_end = True

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def carry(self, to: Wire, size: int) -> bool:
        """At most `size` bytes, or the end; False if nothing went."""
        if to.is_paused or to.is_closed:
            return False
        if self.sent:
            data = bytes(self.sent[:size])
            del self.sent[:size]
            to.protocol.data_received(data)
            return True
        if self.has_end and not getattr(to, "heard_end", False):
            to.heard_end = True  # type: ignore[attr-defined]
            if not to.protocol.eof_received():
                to.close()
            return True
        return False


class Both:
    """Two ends, and what carries their bytes."""

    def __init__(self, client: ssl.SSLContext, server: ssl.SSLContext) -> None:
        self.shaking = Shaking(), Shaking()
        self.wires = Wire(), Wire()
        self.ends = (
            TlsTransport(self.shaking[0], lambda i, o: client.wrap_bio(i, o, server_hostname="a.test")),
            TlsTransport(
                self.shaking[1], lambda i, o: server.wrap_bio(i, o, server_side=True), is_server=True
            ),
        )
        for wire, end in zip(self.wires, self.ends, strict=True):
            wire.protocol = end
            end.connection_made(wire)  # type: ignore[arg-type]

    async def run(self, size: Callable[[], int], until: Callable[[], bool]) -> None:
        async with asyncio.timeout(100):
            while not until():
                one, other = self.wires
                one.carry(other, size())
                other.carry(one, size())
                await asyncio.sleep(0)

    async def connected(self, size: Callable[[], int]) -> tuple[Sink, Sink]:
        await self.run(size, lambda: all(shaking.done.done() for shaking in self.shaking))
        sinks = Sink(keeps=True), Sink(keeps=True)
        for shaking, sink in zip(self.shaking, sinks, strict=True):
            (await shaking.done).attach(sink)
        return sinks


@pytest.fixture(params=["1.2", "1.3"])
def both(request: pytest.FixtureRequest, certificates: Certificates) -> Callable[[], Both]:
    version = ssl.TLSVersion.TLSv1_2 if request.param == "1.2" else ssl.TLSVersion.TLSv1_3
    server = serving(certificates.pair("a", "a.test"), version)
    client = trusting(certificates.ca)
    return lambda: Both(client, server)


def link(sink: Sink) -> Link:
    assert sink.link is not None
    return sink.link


@pytest.mark.parametrize("size", [1, 2, 7, 1000, WHOLE])
async def test_a_handshake_and_a_conversation_in_pieces(both: Callable[[], Both], size: int) -> None:
    pair = both()
    client, server = await pair.connected(lambda: size)
    link(client).write(b"hello")
    await pair.run(lambda: size, lambda: server.data == b"hello")
    link(server).writelines([b"well", b"come"])
    await pair.run(lambda: size, lambda: client.data == b"wellcome")
    link(client).end_writing()
    await pair.run(lambda: size, lambda: "end" in server.heard)
    link(server).write(b"bye")
    link(server).end_writing()
    await pair.run(lambda: size, lambda: "end" in client.heard)
    assert client.data == b"wellcomebye"


async def test_last_words_take_the_end_of_tls_along(both: Callable[[], Both]) -> None:
    pair = both()
    client, server = await pair.connected(lambda: WHOLE)
    await pair.run(lambda: WHOLE, lambda: not pair.wires[0].is_paused)
    link(server).write_last(b"bye")
    assert pair.wires[1].carry(pair.wires[0], WHOLE)
    assert client.heard == [b"bye", "end"]
    link(server).write(b"too late")
    link(server).close()
    assert pair.wires[1].has_end
    assert not pair.wires[1].sent
    link(server).write_last(b"far too late")
    assert not pair.wires[1].sent


@pytest.mark.parametrize("seed", range(8))
async def test_random_pieces_writes_and_pauses(both: Callable[[], Both], seed: int) -> None:
    """What was written comes in order and whole, a pause holds everything back, and the end comes last."""
    rng = random.Random(seed)
    pair = both()

    def size() -> int:
        return rng.choice((1, 5, 50, 3000, 70_000, WHOLE))

    sinks = await pair.connected(size)
    written = [bytearray(), bytearray()]
    has_ended = [False, False]
    paused = [False, False]
    for _ in range(300):
        number = rng.randrange(2)
        sink, step = sinks[number], rng.random()
        if step < 0.4 and not has_ended[number]:
            data = rng.randbytes(rng.choice((0, 1, 100, 16384, 16385, 90_000)))
            link(sink).write(data)
            written[number] += data
        elif step < 0.55:
            paused[number] = not paused[number]
            (link(sink).pause if paused[number] else link(sink).resume)()
        elif step < 0.57 and not has_ended[number]:
            link(sink).end_writing()
            has_ended[number] = True
        before = [len(one.heard) for one in sinks]
        one, other = pair.wires
        one.carry(other, size())
        other.carry(one, size())
        await asyncio.sleep(0)
        for index in (0, 1):
            if paused[index]:
                assert len(sinks[index].heard) == before[index]
    for number, sink in enumerate(sinks):
        link(sink).resume()
        if not has_ended[number]:
            link(sink).end_writing()
    await pair.run(size, lambda: all("end" in sink.heard for sink in sinks))
    for number, sink in enumerate(sinks):
        assert sink.data == written[1 - number]
        assert sink.heard[-1] == "end"
        assert sink.heard.count("end") == 1


async def test_nothing_is_left_of_many_handshakes_that_break_off(both: Callable[[], Both]) -> None:
    """At each point where it may: no object of a connection outlives it, and none waits for the collector."""
    rng = random.Random(1)
    known: list[weakref.ref[ssl.SSLObject]] = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(60):
            known += broken_off(both(), rng)
        await asyncio.sleep(0)
        assert [one for one in known if one() is not None] == []
    finally:
        gc.enable()


def broken_off(pair: Both, rng: random.Random) -> list[weakref.ref[ssl.SSLObject]]:
    """After some of the handshake both ends are lost. Returns what must not be left of them."""
    known = [weakref.ref(end.tls) for end in pair.ends]
    one, other = pair.wires
    for _ in range(rng.randrange(6)):
        one.carry(other, rng.choice((1, 100, WHOLE)))
        other.carry(one, rng.choice((1, 100, WHOLE)))
    for end, shaking in zip(pair.ends, pair.shaking, strict=True):
        end.connection_lost(None)
        if shaking.done.done() and shaking.done.exception() is not None:
            assert isinstance(shaking.done.exception(), TlsFailed)
        end.write(b"nobody hears it")
        end.close()
        end.abort()
    return known
