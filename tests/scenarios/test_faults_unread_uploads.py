"""An answer that comes before its request was read is delivered, and what is read behind it has an end.

Reading goes on by time, not by bytes, so that no reset destroys the answer on its way (RFC 9112 9.6): a client that
writes first and reads later has 30 s in all to do so, however little it sends at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.scenarios.stage import OK, Stage, get, inbound, post, stage
from tests.support.proxy import HEADER
from tests.support.raw import PATIENCE_SECONDS, RawClient, RawPeer, Response, Script, raw_client, turns

UPLOAD_BYTES = 20_000_000
TOTAL_SECONDS = 30.0
LATE_SECONDS = 0.1


async def too_large(peer: RawPeer) -> None:
    """413 from the head alone; the connection is closed with the body unread, as servers do."""
    await peer.head()
    await peer.send(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")


async def unauthorised(peer: RawPeer) -> None:
    """401 from the head alone; the connection is kept, and nothing more is read."""
    await peer.head()
    await peer.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\nwho")
    await asyncio.sleep(1000)


async def unavailable(peer: RawPeer) -> None:
    """A failure that counts, to whatever is asked."""
    while await peer.request() is not None:
        await peer.send(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")


@dataclass(frozen=True)
class Early:
    """How an answer comes to be early, and which one it is."""

    status: int
    script: Script = RawPeer.echo
    lines: tuple[bytes, ...] = ()
    target: bytes = b"/app"
    route: str = ""

    @asynccontextmanager
    async def stage(self, header: str = HEADER) -> AsyncIterator[Stage]:
        route = ", ".join(filter(None, ("match: {path: {prefix: /app}}", self.route)))
        async with stage(self.script, route=route, header=header) as to:
            if self.script is unavailable:
                for _ in range(5):
                    await to.ask(get(b"/app"))
                assert to.breaker.state.value == "open"
            yield to

    def head(self, *lines: bytes, method: bytes = b"POST") -> bytes:
        head = b"%b %b HTTP/1.1\r\nHost: x\r\n" % (method, self.target)
        return head + b"".join(line + b"\r\n" for line in (*self.lines, *lines)) + b"\r\n"


EARLY = {
    "open breaker": Early(503, unavailable),
    "fallback": Early(203, unavailable, route="fallback: {status: 203, body: instead}"),
    "no route": Early(404, target=b"/no-route"),
    "time is spent": Early(504, lines=(b"x-request-timeout-ms: 0",)),
    "413 and a close": Early(413, too_large),
    "401 without a close": Early(401, unauthorised),
}
EACH = pytest.mark.parametrize("early", EARLY)

FRAMINGS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "length": (b"Content-Length: %d" % UPLOAD_BYTES, lambda data: data),
    "chunks": (b"Transfer-Encoding: chunked", lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
}


async def write_first(client: RawClient, framing: str) -> None:
    """Send the whole upload before one byte of an answer is read."""
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    piece = FRAMINGS[framing][1](bytes(100_000))
    for _ in range(UPLOAD_BYTES // 100_000):
        client.writer.write(piece)
        await client.writer.drain()
    if framing == "chunks":
        client.writer.write(b"0\r\n\r\n")
    while client.writer.transport.get_write_buffer_size():
        assert not client.writer.transport.is_closing(), "nobody reads the upload any more"
        await turns(10)
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]


async def answered(client: RawClient, method: bytes = b"POST") -> Response:
    (response,) = await client.responses([method])
    assert not client.is_reset
    return response


@pytest.mark.parametrize("framing", FRAMINGS)
@EACH
async def test_a_client_that_writes_first_and_reads_later_gets_its_answer(early: str, framing: str) -> None:
    """20 MB against an answer that was there after the head."""
    to_be = EARLY[early]
    async with to_be.stage() as to, raw_client(to.port) as client:
        await client.send(to_be.head(FRAMINGS[framing][0]))
        await write_first(client, framing)
        assert (await answered(client)).status == to_be.status


@pytest.mark.parametrize("method", [b"PUT", b"PATCH", b"DELETE", b"GET"])
async def test_the_method_makes_no_difference(method: bytes) -> None:
    early = EARLY["no route"]
    async with early.stage() as to, raw_client(to.port) as client:
        await client.send(early.head(FRAMINGS["length"][0], method=method))
        await write_first(client, "length")
        assert (await answered(client, method)).status == 404


async def test_a_client_of_http_1_0_gets_its_answer() -> None:
    early = EARLY["no route"]
    async with early.stage() as to, raw_client(to.port) as client:
        await client.send(early.head(FRAMINGS["length"][0]).replace(b"HTTP/1.1", b"HTTP/1.0"))
        await write_first(client, "length")
        assert (await answered(client)).status == 404


async def test_a_client_that_expects_and_does_not_wait_gets_its_answer() -> None:
    early = EARLY["401 without a close"]
    async with early.stage() as to, raw_client(to.port) as client:
        await client.send(early.head(FRAMINGS["length"][0], b"Expect: 100-continue"))
        await write_first(client, "length")
        assert (await answered(client)).status == 401


@pytest.mark.parametrize(
    "head",
    [
        b"POST /app HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % UPLOAD_BYTES,
        b"POST /app HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % UPLOAD_BYTES,
        b"POST /app HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody!!",
    ],
    ids=["no host", "two framings", "bad chunk"],
)  # fmt: skip
async def test_a_request_that_cannot_be_read_is_answered_though_an_upload_follows(head: bytes) -> None:
    async with stage() as to, raw_client(to.port) as client:
        await client.send(head)
        await write_first(client, "length")
        response = await answered(client)
        assert (response.status, response.value(b"connection")) == (400, b"close")


async def test_a_request_ahead_of_it_in_the_same_connection_keeps_its_answer_as_well() -> None:
    early = EARLY["no route"]
    async with early.stage() as to, raw_client(to.port) as client:
        await client.send(get(b"/app") + early.head(FRAMINGS["length"][0]))
        await write_first(client, "length")
        answers = await client.responses([b"GET", b"POST"])
        assert [answer.status for answer in answers] == [200, 404]


async def test_a_client_on_a_unix_socket_gets_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    header = HEADER.replace('inbound: {address: "127.0.0.1:0"}', f'inbound: {{address: "unix:{path}"}}')
    early = EARLY["no route"]
    async with early.stage(header):
        reader, writer = await asyncio.open_unix_connection(path)
        client = RawClient(reader, writer)
        await client.send(early.head(FRAMINGS["length"][0]))
        await write_first(client, "length")
        assert (await answered(client)).status == 404
        writer.close()


# An end


async def seconds_until_cut(to: Stage, client: RawClient, data: bytes, *, every_seconds: float) -> float:
    """How long the client can go on sending `data`, until the sidecar has no connection left; at most 200 s."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while to.worker.listeners["inbound"].connection_count and loop.time() - began < PATIENCE_SECONDS:
        if not client.writer.transport.is_closing():
            client.writer.write(data)
        await asyncio.sleep(every_seconds)
    return loop.time() - began


TRICKLING = {
    "length that is short enough to skip": (b"Content-Length: 60000", b"x"),
    "length": (b"Content-Length: 20000000", b"x"),
    "chunks": (b"Transfer-Encoding: chunked", b"1\r\nx\r\n"),
    "one long chunk": (b"Transfer-Encoding: chunked\r\n\r\nffffff\r\n" + b"x", b"x"),
    "chunk extension": (b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x", b"x"),
    "trailers": (b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: " + b"x", b"x"),
}


@pytest.mark.parametrize("every_seconds", [1.0, 1.9])
@pytest.mark.parametrize("trickling", TRICKLING)
@pytest.mark.parametrize("early", ["no route", "413 and a close", "open breaker"])
async def test_a_body_that_trickles_behind_its_answer_has_an_end(
    early: str, trickling: str, every_seconds: float
) -> None:
    """A byte a second kept its connection for hours."""
    to_be, (line, piece) = EARLY[early], TRICKLING[trickling]
    async with to_be.stage() as to, raw_client(to.port) as client:
        head = to_be.head(line) if b"\r\n\r\n" not in line else to_be.head(line)[:-4]
        await client.send(head)
        while b"\r\n\r\n" not in client.received:
            await client.read_some()
        took = await seconds_until_cut(to, client, piece, every_seconds=every_seconds)
        assert took <= TOTAL_SECONDS + every_seconds + LATE_SECONDS
        assert client.received.startswith(b"HTTP/1.1 %d" % to_be.status)
        await turns(20)
        assert to.worker.listeners["inbound"].connection_count == 0


async def test_a_slow_upload_gets_its_answer_and_one_without_an_end_is_cut() -> None:
    """20 MB in 20 s are read, whatever their number; 1 MB a second for longer is not."""
    early = EARLY["no route"]
    async with early.stage() as to:
        async with raw_client(to.port) as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(early.head(FRAMINGS["length"][0]))
            for _ in range(20):
                await asyncio.sleep(1)
                client.writer.write(bytes(1_000_000))
                await client.writer.drain()
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert (await answered(client)).status == 404
        async with raw_client(to.port) as client:
            await client.send(early.head(b"Content-Length: 900000000"))
            took = await seconds_until_cut(to, client, bytes(1_000_000), every_seconds=1)
            assert took <= TOTAL_SECONDS + 1 + LATE_SECONDS


async def test_what_trickles_behind_a_request_that_could_not_be_read_has_an_end() -> None:
    async with stage() as to, raw_client(to.port) as client:
        await client.send(b"nonsense\r\n\r\n")
        while b"\r\n\r\n" not in client.received:
            await client.read_some()
        took = await seconds_until_cut(to, client, b"x", every_seconds=0.5)
        assert took <= TOTAL_SECONDS + 0.5 + LATE_SECONDS


@pytest.mark.parametrize("state", ["head", "body"])
async def test_what_trickles_behind_a_408_has_an_end(state: str) -> None:
    header = inbound("timeouts: {head: 2s, body: 2s}")
    async with stage(header=header) as to, raw_client(to.port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHo" if state == "head" else post(b"body")[:-1])
        while b"\r\n\r\n" not in client.received:
            await client.read_some()
        assert client.received.startswith(b"HTTP/1.1 408 ")
        took = await seconds_until_cut(to, client, b"x", every_seconds=0.5)
        assert took <= TOTAL_SECONDS + 0.5 + LATE_SECONDS


async def test_many_that_trickle_are_all_gone() -> None:
    """2,000 at once kept their places at the listener; here it is 200."""
    async with EARLY["no route"].stage() as to:
        head = EARLY["no route"].head(b"Content-Length: 60000")
        clients = [await asyncio.open_connection("127.0.0.1", to.port) for _ in range(200)]
        for _ in range(40):
            for _, writer in clients:
                if not writer.transport.is_closing():
                    writer.write(head)
            head = b"x"
            await asyncio.sleep(1)
        assert to.worker.listeners["inbound"].connection_count == 0
        for _, writer in clients:
            writer.close()


async def test_a_short_rest_of_a_body_is_skipped_and_the_connection_goes_on() -> None:
    """What comes in time behind its answer costs nobody a connection."""
    async with stage(route="match: {path: {exact: /}}") as to, raw_client(to.port) as client:
        await client.send(b"POST /no-route HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(1)
            await client.send(b"x")
        await client.send(get())
        answers = await client.responses([b"POST", b"GET"])
        assert [answer.status for answer in answers] == [404, 200]


async def test_the_time_of_one_skipped_body_is_not_taken_off_the_next() -> None:
    """Each of four early answers on one connection has its own 30 s."""
    async with stage(route="match: {path: {exact: /}}") as to, raw_client(to.port) as client:
        for _ in range(4):
            await client.send(b"POST /no-route HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n")
            for _ in range(20):
                await asyncio.sleep(1)
                await client.send(b"x")
        await client.send(get())
        answers = await client.responses([b"POST"] * 4 + [b"GET"])
        assert [answer.status for answer in answers] == [404] * 4 + [200]


async def test_a_client_that_stops_sending_has_its_connection_closed_soon() -> None:
    """The 30 s are a limit, not a wait: who has closed is gone at once."""
    early = EARLY["no route"]
    loop = asyncio.get_running_loop()
    async with early.stage() as to, raw_client(to.port) as client:
        await client.send(early.head(FRAMINGS["length"][0]) + bytes(1000))
        began = loop.time()
        await client.read_to_end()
        client.writer.close()
        await turns(20)
        assert to.worker.listeners["inbound"].connection_count == 0
        assert loop.time() - began < 1


async def test_the_answer_of_an_upstream_that_is_kept_ends_the_wait_for_its_upload() -> None:
    """After the last byte of a whole upload, the connection of both sides may go on."""

    async def script(peer: RawPeer) -> None:
        await peer.head()
        await peer.send(OK)
        while await peer.read_some():
            pass

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(post(bytes(30_000))[:-10_000])
        (response,) = await client.responses([b"POST"])
        assert response.status == 200
        await client.send(bytes(10_000) + get(b"/second"))
        answers = await client.responses([b"POST", b"GET"])
        assert [answer.status for answer in answers] == [200, 200]
