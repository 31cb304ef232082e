"""Our TLS between a loop's transport and a protocol: against Python's own TLS, on both loops and both versions."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from sidecar.core.errors import Reason
from sidecar.core.snapshot import CertificateFiles
from sidecar.transport.link import Link
from sidecar.transport.tls import transport as tls_transport
from sidecar.transport.tls.failures import TlsCut, TlsFailed
from sidecar.transport.tls.files import client_context, server_context, trust
from sidecar.transport.tls.transport import OpenHandshaking, TlsTransport
from tests.support.certificates import Certificates

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return VERSIONS[request.param]


class Shaking(OpenHandshaking):
    """Tells how it ended by a future."""

    def __init__(self) -> None:
        self.done: asyncio.Future[TlsTransport] = asyncio.get_running_loop().create_future()
        self.refuse: TlsFailed | None = None

    def shaken(self, transport: TlsTransport) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.done.set_result(transport)

    def failed(self, transport: TlsTransport, error: TlsFailed) -> None:
        self.done.set_exception(error)


class Sink:
    """A protocol of ours, which notes what it hears."""

    def __init__(self, *, keeps: bool = False) -> None:
        self.heard: list[Any] = []
        self.keeps = keeps
        self.link: Link | None = None
        self._changed = asyncio.Event()

    def _note(self, what: Any) -> None:
        self.heard.append(what)
        self._changed.set()

    def connection_made(self, transport: Any) -> None:
        self.link = Link(transport)

    def data_received(self, data: bytes) -> None:
        self._note(data)

    def eof_received(self) -> bool:
        self._note("end")
        return self.keeps

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, error: Exception | None) -> None:
        assert self.link is not None
        self.link.lost()
        self._note(("lost", error))

    @property
    def data(self) -> bytes:
        return b"".join(one for one in self.heard if isinstance(one, bytes))

    async def until(self, is_there: Callable[[], bool]) -> None:
        async with asyncio.timeout(100):
            while not is_there():
                self._changed.clear()
                await self._changed.wait()

    async def lost(self) -> Exception | None:
        await self.until(lambda: isinstance(self.heard[-1:][0] if self.heard else 0, tuple))
        return self.heard[-1][1]


class Peer:
    """Python's TLS as a server."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.came: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Peer:
        async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self.came.put((reader, writer))

        self._server = await asyncio.start_server(taken, "127.0.0.1", 0, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        while not self.came.empty():
            _, writer = self.came.get_nowait()
            writer.transport.abort()

    async def next(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(100):
            return await self.came.get()


def serving(pair: CertificateFiles, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = server_context()
    context.load_cert_chain(pair.chain, pair.key)
    context.minimum_version = context.maximum_version = version
    return context


def trusting(ca: str) -> ssl.SSLContext:
    context = client_context()
    trust(context, ca)
    return context


async def opened(port: int, context: ssl.SSLContext, shaking: Shaking | None = None) -> TlsTransport:
    """A connection of ours whose handshake is done."""
    shaking = shaking or Shaking()
    made = TlsTransport(
        shaking, lambda incoming, outgoing: context.wrap_bio(incoming, outgoing, server_hostname="a.test")
    )
    await asyncio.get_running_loop().create_connection(lambda: made, "127.0.0.1", port)
    async with asyncio.timeout(100):
        return await shaking.done


async def bound_for(shaking: Shaking, context: ssl.SSLContext) -> asyncio.Server:
    """A server of ours for one connection; `shaking` hears how its handshake ends."""
    return await asyncio.get_running_loop().create_server(
        lambda: TlsTransport(
            shaking,
            lambda incoming, outgoing: context.wrap_bio(incoming, outgoing, server_side=True),
            is_server=True,
        ),
        "127.0.0.1",
        0,
    )


def send_in_tiny_records(client: TlsTransport, pieces: Iterable[bytes]) -> None:
    """Each a record of its own, all in one write."""
    records = []
    for piece in pieces:
        client.tls.write(piece)
        records.append(client._outgoing.read())
    assert client._raw is not None
    client._raw.write(b"".join(records))


async def test_bytes_go_both_ways_and_each_side_says_its_end(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    async with Peer(serving(certificates.pair("a", "a.test"), version)) as peer:
        transport = await opened(peer.port, trusting(certificates.ca))
        sink = Sink()
        transport.attach(sink)
        reader, writer = await peer.next()
        link = sink.link
        assert link is not None
        link.write(b"hello ")
        link.writelines([b"w", b"orld"])
        assert await reader.readexactly(11) == b"hello world"
        writer.write(b"well")
        await sink.until(lambda: sink.data == b"well")
        link.close()
        assert await reader.read() == b""  # no "unexpected end": close_notify came
        assert await sink.lost() is None
        link.write(b"nobody hears it")
        assert link.is_lost
        writer.close()


async def test_what_was_agreed_on_is_known(certificates: Certificates, version: ssl.TLSVersion) -> None:
    context = serving(certificates.pair("a", "a.test"), version)
    context.set_alpn_protocols(["h2"])
    ours = trusting(certificates.ca)
    ours.set_alpn_protocols(["http/1.1", "h2"])
    async with Peer(context) as peer:
        transport = await opened(peer.port, ours)
        sink = Sink()
        transport.attach(sink)
        link = sink.link
        assert link is not None
        facts = link.tls
        assert facts is not None
        assert facts.version == ("1.2" if version is ssl.TLSVersion.TLSv1_2 else "1.3")
        assert facts.cipher
        assert link.alpn == "h2"
        assert link.identity is None  # whoever verifies it says so
        assert link.peer == ("127.0.0.1", peer.port)
        link.abort()
        await sink.lost()


async def test_one_direction_ends_and_the_other_goes_on(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """Both ways round; nothing that is pending is dropped."""
    context, ours = serving(certificates.pair("a", "a.test"), version), trusting(certificates.ca)
    size = 4 * 1024 * 1024
    server_sink, shaking = Sink(keeps=True), Shaking()
    bound = await bound_for(shaking, context)
    client = await opened(bound.sockets[0].getsockname()[1], ours)
    sink = Sink(keeps=True)
    client.attach(sink)
    (await shaking.done).attach(server_sink)
    assert sink.link is not None
    assert server_sink.link is not None
    assert sink.link.can_half_close
    sink.link.write(bytes(size))
    sink.link.end_writing()
    await server_sink.until(lambda: "end" in server_sink.heard)
    assert len(server_sink.data) == size
    server_sink.link.write(b"a" * size)
    server_sink.link.end_writing()
    await sink.until(lambda: "end" in sink.heard)
    assert sink.data == b"a" * size
    sink.link.close()
    server_sink.link.close()
    assert await sink.lost() is None
    assert await server_sink.lost() is None
    bound.close()


async def test_an_end_without_its_word_is_no_clean_end(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """RFC 8446 6.1: somebody on the way may have cut it."""
    async with Peer(serving(certificates.pair("a", "a.test"), version)) as peer:
        transport = await opened(peer.port, trusting(certificates.ca))
        sink = Sink()
        transport.attach(sink)
        _, writer = await peer.next()
        writer.write(b"half")
        await sink.until(lambda: sink.data == b"half")
        sock = writer.get_extra_info("socket")
        duplicate = socket.socket(fileno=os.dup(sock.fileno()))
        duplicate.shutdown(socket.SHUT_WR)
        duplicate.close()
        error = await sink.lost()
        assert isinstance(error, TlsCut)
        writer.transport.abort()


async def test_what_comes_while_reading_is_paused_waits_and_comes_whole(certificates: Certificates) -> None:
    size = 8 * 1024 * 1024
    async with Peer(serving(certificates.pair("a", "a.test"))) as peer:
        transport = await opened(peer.port, trusting(certificates.ca))
        sink = Sink()
        transport.attach(sink)
        _, writer = await peer.next()
        link = sink.link
        assert link is not None
        writer.write(b"first")
        await sink.until(lambda: sink.data == b"first")
        link.pause()
        writer.write(b"x" * size)
        for _ in range(50):
            await asyncio.sleep(0)
        before = len(sink.data)
        assert before < 2 * 1024 * 1024
        link.resume()
        await sink.until(lambda: len(sink.data) == size + 5)
        link.close()
        await sink.lost()
        writer.transport.abort()


async def test_a_peer_that_takes_nothing_is_written_to_no_more(certificates: Certificates) -> None:
    """What is unsent is counted, and the writer is told to pause, as in clear text; and then to go on."""
    async with Peer(serving(certificates.pair("a", "a.test"))) as peer:
        transport = await opened(peer.port, trusting(certificates.ca))
        sink = Sink()
        transport.attach(sink)
        reader, writer = await peer.next()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        link = sink.link
        assert link is not None
        written = 0
        while "pause" not in sink.heard:
            link.write(bytes(64 * 1024))
            written += 64 * 1024
            await asyncio.sleep(0)
            assert written < 256 * 1024 * 1024
        assert 0 < link.unsent_bytes <= 1024 * 1024
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await reader.readexactly(written)) == written
        await sink.until(lambda: "resume" in sink.heard)
        link.abort()
        await sink.lost()
        writer.transport.abort()


@pytest.mark.plain
async def test_closing_takes_two_seconds_at_most_where_nothing_is_taken(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_transport, "SHUTDOWN_SECONDS", 0.05)
    async with Peer(serving(certificates.pair("a", "a.test"))) as peer:
        transport = await opened(peer.port, trusting(certificates.ca))
        sink = Sink()
        transport.attach(sink)
        reader, writer = await peer.next()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        link = sink.link
        assert link is not None
        link.write(bytes(64 * 1024 * 1024))
        assert link.unsent_bytes
        link.close()
        await sink.lost()
        writer.transport.abort()


async def test_a_writer_that_closes_right_after_connecting_loses_nothing(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """The server's tickets come meanwhile, and nobody reads them: closing must not answer them with a reset."""
    size = 16 * 1024 * 1024
    context = serving(certificates.pair("a", "a.test"), version)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        taking = asyncio.create_task(asyncio.to_thread(taken_slowly, bound, context))
        transport = await opened(bound.getsockname()[1], trusting(certificates.ca))
        sink = Sink()
        transport.attach(sink)
        assert sink.link is not None
        for _ in range(size // (64 * 1024)):
            sink.link.write(b"y" * 64 * 1024)
        sink.link.close()
        assert await taking == b"y" * size
        assert await sink.lost() is None


def taken_slowly(bound: socket.socket, context: ssl.SSLContext) -> bytes:
    """All that one connection brings, by somebody who does not hurry. Runs in a thread."""
    sock, _ = bound.accept()
    sock.settimeout(100)
    with context.wrap_socket(sock, server_side=True) as secure:
        time.sleep(0.2)
        taken = []
        while data := secure.recv(256 * 1024):
            taken.append(data)
        return b"".join(taken)


async def test_a_peer_that_leaves_is_seen_while_it_is_written_to(certificates: Certificates) -> None:
    async with Peer(serving(certificates.pair("a", "a.test"))) as peer:
        transport = await opened(peer.port, trusting(certificates.ca))
        sink = Sink()
        transport.attach(sink)
        _, writer = await peer.next()
        writer.transport.abort()
        await sink.lost()
        assert sink.link is not None
        assert sink.link.is_closing


async def test_a_handshake_that_is_refused_closes_and_is_told_once(certificates: Certificates) -> None:
    async with Peer(serving(certificates.pair("a", "a.test"))) as peer:
        shaking = Shaking()
        shaking.refuse = TlsFailed(Reason.TLS_CERTIFICATE, "not you")
        with pytest.raises(TlsFailed, match="not you"):
            await opened(peer.port, trusting(certificates.ca), shaking)
        reader, _ = await peer.next()
        assert await reader.read() == b""


async def test_a_peer_in_clear_text_or_silent_or_gone_is_told_apart(certificates: Certificates) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    for behave, words in (
        (plain, "the other side does not speak TLS there"),
        (gone, "closed in the handshake"),
    ):
        server = await asyncio.start_server(behave, "127.0.0.1", 0)
        with pytest.raises(TlsFailed, match=words) as caught:
            await opened(server.sockets[0].getsockname()[1], trusting(certificates.ca))
        assert caught.value.reason is Reason.TLS_PROTOCOL
        server.close()


@pytest.mark.parametrize("beyond", [0, 1])
async def test_a_handshake_has_a_size_that_it_may_have(certificates: Certificates, beyond: int) -> None:
    """A server takes 16 KiB of a client's first message; here one that never ends."""
    context = serving(certificates.pair("a", "a.test"))
    shaking = Shaking()
    bound = await bound_for(shaking, context)
    reader, writer = await asyncio.open_connection(*bound.sockets[0].getsockname()[:2])
    size = tls_transport.HELLO_BYTES + beyond
    body = size - 9 - 5  # two records of a message that announces 64 KiB
    first = b"\x16\x03\x01" + (8192).to_bytes(2, "big") + b"\x01\x00\xff\xff" + bytes(8188)
    second = b"\x16\x03\x01" + (8192).to_bytes(2, "big") + bytes(size - len(first) - 5)
    assert len(first + second) == size, body
    writer.write(first + second)
    if beyond:
        with pytest.raises(TlsFailed, match="a handshake of more than 16384 bytes"):
            await asyncio.wait_for(asyncio.shield(shaking.done), 100)
        assert await reader.read() == b""
    else:
        await writer.drain()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not shaking.done.done()
        writer.close()
        with pytest.raises(TlsFailed, match="closed in the handshake"):
            await asyncio.wait_for(asyncio.shield(shaking.done), 100)
    writer.close()
    bound.close()


async def test_a_reset_ends_it_and_what_came_before_can_be_read(certificates: Certificates) -> None:
    """An upstream that answers early and resets: its answer lies in the kernel, encrypted."""
    async with Peer(serving(certificates.pair("a", "a.test"), VERSIONS["1.2"])) as peer:
        transport = await opened(peer.port, trusting(certificates.ca))

        class Late(Sink):
            def connection_lost(self, error: Exception | None) -> None:
                assert self.link is not None
                for piece in self.link.unread():
                    self._note(piece)
                super().connection_lost(error)

        sink = Late()
        transport.attach(sink)
        _, writer = await peer.next()
        assert sink.link is not None
        writer.write(b"first")
        await sink.until(lambda: sink.data == b"first")
        sink.link.pause()
        writer.write(b"early")
        await asyncio.sleep(0.05)  # it is in our kernel by then, and not read
        writer.transport.abort()
        for _ in range(200):
            sink.link.write(bytes(1024))
            await asyncio.sleep(0.001)
            if sink.link.is_lost:
                break
        sink.link.abort()
        await sink.lost()
        assert sink.data in (b"first", b"firstearly")


async def test_tiny_records_are_read_in_turns_and_come_whole(certificates: Certificates) -> None:
    """Each of one byte: what one read of the loop brings would hold it for 17 ms."""
    count = 12_000
    context = serving(certificates.pair("a", "a.test"))
    server_sink, shaking = Sink(), Shaking()
    bound = await bound_for(shaking, context)
    client = await opened(bound.sockets[0].getsockname()[1], trusting(certificates.ca))
    sink = Sink()
    client.attach(sink)
    (await shaking.done).attach(server_sink)
    assert sink.link is not None
    send_in_tiny_records(client, (b"%d" % (number % 10) for number in range(count)))
    await server_sink.until(lambda: len(server_sink.data) == count)
    assert server_sink.data == b"0123456789" * (count // 10)
    assert max(map(len, server_sink.heard)) <= tls_transport.MOST_RECORDS + 1
    sink.link.close()
    await server_sink.lost()
    bound.close()


async def test_a_pause_holds_in_the_middle_of_tiny_records(certificates: Certificates) -> None:
    class Pausing(Sink):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            assert self.link is not None
            self.link.pause()

    context = serving(certificates.pair("a", "a.test"))
    server_sink, shaking = Pausing(), Shaking()
    bound = await bound_for(shaking, context)
    client = await opened(bound.sockets[0].getsockname()[1], trusting(certificates.ca))
    sink = Sink()
    client.attach(sink)
    (await shaking.done).attach(server_sink)
    assert sink.link is not None
    assert server_sink.link is not None
    send_in_tiny_records(client, [b"x"] * 5000)
    sink.link.close()
    for pieces in range(1, 5001):
        await server_sink.until(lambda pieces=pieces: len(server_sink.heard) >= pieces)  # type: ignore[misc]
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(server_sink.heard) == pieces
        server_sink.link.resume()
        if len(server_sink.data) == 5000:
            break
    await server_sink.lost()
    bound.close()
