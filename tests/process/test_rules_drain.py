"""The last moment of a drain: whoever asks as the doors close is answered once more, or closed, and never reset."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process.setting import Served, served, written
from tests.support.process import sidecar
from tests.support.raw import RawClient, RawPeer, Response, raw_client, raw_upstream, turns

pytestmark = pytest.mark.process

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLIENTS = 24
DELAYS = pytest.mark.parametrize("delay", ["0s", "300ms"])
CLOSED, RESET = "closed", "reset"


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(100):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.001)


@dataclass
class Busy:
    """A client that asks again as soon as there is an answer, on a new connection where it is told to."""

    port: int
    data: bytes
    seen: Counter[str]
    is_kept: bool = False
    """The connection has had an answer."""

    async def ask_to_the_end(self) -> None:
        """Until nobody listens any more."""
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionRefusedError:
                return
            except ConnectionError:
                self.seen["new connection reset"] += 1
                continue
            self.is_kept = False
            self.seen[await self._ask_on(RawClient(reader, writer))] += 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _ask_on(self, client: RawClient) -> str:
        """How the connection ended."""
        while True:
            client.received = b""
            client.writer.write(self.data)
            answers = await client.responses([self.data.partition(b" ")[0]])
            which = "kept" if self.is_kept else "new"
            if client.is_reset:
                return f"{which} connection reset"
            if not answers:
                return f"{which} connection closed"
            if answers[0].is_cut or answers[0].status != 200:
                return f"{answers[0].status}, {answers[0].is_cut=}"
            if answers[0].value(b"connection") == b"close":
                return "told"
            self.is_kept = True


@DELAYS
@pytest.mark.parametrize("data", [GET, POST], ids=["get", "post"])
async def test_no_busy_client_is_reset(tmp_path: Path, delay: str, data: bytes) -> None:
    seen: Counter[str] = Counter()

    async with raw_upstream(answering) as app, served(tmp_path, app.port, delay=delay) as to:
        clients = [Busy(to.port, data, seen) for _ in range(CLIENTS)]
        asking = [asyncio.create_task(client.ask_to_the_end()) for client in clients]
        await until(lambda: len(app.requests) >= 10 * CLIENTS)
        to.process.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(100):
            await asyncio.gather(*asking)
            assert await to.process.ended() == 0
        # Between the last look at the queue and the end of listening, the kernel may take one more in, and resets it.
        assert seen["new connection reset"] <= 1, seen
        may_be = {"told", "new connection reset"}
        if delay == "0s":
            may_be.add("kept connection closed")  # without a byte: no request had come when it was closed
        assert seen.keys() <= may_be, seen


async def answering(peer: RawPeer) -> None:
    while await peer.request() is not None:
        await peer.send(OK)


async def stopped(to: Served) -> None:
    """Stop the process between two instructions, and wait until it stands."""
    pid = to.process.process.pid
    to.process.process.send_signal(signal.SIGSTOP)
    await until(lambda: _state(pid) == "T")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def answer_of(client: RawClient) -> Response | str:
    answers = await client.responses([b"GET"])
    return answers[0] if answers else RESET if client.is_reset else CLOSED


async def last_answers(clients: list[RawClient]) -> list[tuple[int, bytes, bytes | None] | str]:
    """What each client got, or how its connection ended without."""
    async with asyncio.timeout(100):
        answers = await asyncio.gather(*map(answer_of, clients))
    return [
        one if isinstance(one, str) else (one.status, one.body, one.value(b"connection")) for one in answers
    ]


@pytest.mark.parametrize("delay", ["0s", "2s"])
async def test_what_had_come_before_the_doors_close_is_served_once_more(tmp_path: Path, delay: str) -> None:
    """Requests on kept connections that nobody has read yet, and connections that nobody has accepted yet."""
    async with (
        raw_upstream() as app,
        served(tmp_path, app.port, delay=delay) as to,
        AsyncExitStack() as stack,
    ):
        kept = [await stack.enter_async_context(raw_client(to.port)) for _ in range(CLIENTS)]
        for client in kept:
            await client.send(GET)
            assert (await client.responses([b"GET"]))[0].status == 200
            client.received = b""
        if delay == "0s":
            await stopped(to)
            to.process.process.send_signal(signal.SIGTERM)
        else:
            to.process.process.send_signal(signal.SIGTERM)
            await to.process.logged("draining")
            await stopped(to)
        for client in kept:
            await client.send(GET)
        queued = [await stack.enter_async_context(raw_client(to.port)) for _ in range(CLIENTS)]
        for client in queued:
            await client.send(GET)
        if delay != "0s":
            await asyncio.sleep(2.1)  # the delay ends while it stands
        to.process.process.send_signal(signal.SIGCONT)
        assert await last_answers([*kept, *queued]) == [(200, b"GET /", b"close")] * 2 * CLIENTS
        async with asyncio.timeout(100):
            assert await to.process.ended() == 0


async def test_a_request_that_comes_in_pieces_as_the_doors_close_is_served(tmp_path: Path) -> None:
    """Its first byte has come: it is no idle connection."""
    async with raw_upstream() as app, served(tmp_path, app.port) as to, raw_client(to.port) as client:
        await client.send(GET)
        assert (await client.responses([b"GET"]))[0].status == 200
        client.received = b""
        await stopped(to)
        await client.send(GET[:10])
        to.process.process.send_signal(signal.SIGTERM)
        to.process.process.send_signal(signal.SIGCONT)
        await to.process.logged("draining")
        await turns(20)
        await client.send(GET[10:])
        assert await last_answers([client]) == [(200, b"GET /", b"close")]


async def test_what_comes_too_late_ends_without_a_reset(tmp_path: Path) -> None:
    """A client that asks in the moment in which its idle connection is closed reads the end, and may try again."""
    held = asyncio.Event()

    async def app(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            if request.target == b"/held":
                await held.wait()
            await peer.send(OK)

    async with (
        raw_upstream(app) as upstream,
        served(tmp_path, upstream.port) as to,
        raw_client(to.port) as busy_one,
        AsyncExitStack() as stack,
    ):
        idle = [await stack.enter_async_context(raw_client(to.port)) for _ in range(CLIENTS)]
        for client in idle:
            await client.send(GET)
            await client.responses([b"GET"])
            client.received = b""
        await busy_one.send(GET.replace(b" / ", b" /held "))
        await until(lambda: b"/held" in upstream.received)
        to.process.process.send_signal(signal.SIGTERM)
        await to.process.logged("draining")
        for client in idle:
            client.writer.write(GET)
        ends = await last_answers(idle)
        assert set(ends) <= {CLOSED, (200, b"ok", b"close")}, ends
        held.set()
        assert await last_answers([busy_one]) == [(200, b"ok", b"close")]


async def test_reloads_that_wait_are_answered_when_a_drain_begins(tmp_path: Path) -> None:
    held = asyncio.Event()

    async def app(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await held.wait()
            await peer.send(OK)

    reload = b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with raw_upstream(app) as upstream:
        file, inbound, probes = written(tmp_path, upstream.port)
        admin = int(file.read_text().split('admin: {address: "127.0.0.1:')[1].split('"')[0])
        async with sidecar(file, probes, tmp_path / "sidecar.log") as process, AsyncExitStack() as stack:
            busy_one = await stack.enter_async_context(raw_client(inbound))
            await busy_one.send(GET)
            await until(lambda: bool(upstream.requests))
            operators = [await stack.enter_async_context(raw_client(admin)) for _ in range(8)]
            for operator in operators:
                operator.writer.write(reload)
            waiting = [asyncio.create_task(operator.responses([b"POST"])) for operator in operators]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            process.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(100):
                answers = [one for found in await asyncio.gather(*waiting) for one in found]
            assert process.process.returncode is None, "the drain still waits for the exchange under way"
            assert len(answers) == len(operators)
            assert {answer.status for answer in answers} <= {200, 503}
            held.set()
            async with asyncio.timeout(100):
                (last,) = await busy_one.responses([b"GET"])
                assert (last.status, last.value(b"connection")) == (200, b"close")
                assert await process.ended() == 0
