"""The end of a sidecar, second by second: what a client meets while it is leaving."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from sidecar.runtime.worker import Worker
from tests.scenarios.operator import operator
from tests.scenarios.stage import OK, get, stage
from tests.scenarios.test_upgrades import UPGRADE, echoing, expect, head_of
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawPeer, raw_client, raw_upstream, turns


def delay(seconds: str) -> str:
    """The usual header with `drain.delay`."""
    return HEADER + f"drain: {{delay: {seconds}}}\n"


class Ending:
    """A drain under way, and how long it took."""

    def __init__(self, worker: Worker) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.time()
        self._waiting = asyncio.create_task(worker.control.drain.wait())

    @property
    def is_over(self) -> bool:
        return self._waiting.done()

    async def seconds(self) -> float:
        """From the first look at it to its end."""
        await self._waiting
        return round(self._loop.time() - self._begun, 1)


async def test_new_connections_are_served_for_three_seconds_by_default() -> None:
    async with stage() as to:
        to.worker.control.drain.terminated()
        ending = Ending(to.worker)
        for _ in range(2):
            response = await to.ask()
            assert (response.status, response.value(b"connection")) == (200, b"close")
            await asyncio.sleep(1.4)
        assert await ending.seconds() == 3.0
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", to.port)


async def test_a_kept_connection_ends_with_its_next_answer_and_not_before() -> None:
    async with stage() as to, raw_client(to.port) as client:
        await client.send(get())
        (first,) = await client.responses([b"GET"])
        assert first.value(b"connection") is None
        to.worker.control.drain.terminated()
        ending = Ending(to.worker)
        await asyncio.sleep(1)
        client.received = b""
        await client.send(get())
        await client.read_to_end()
        (second,) = await client.responses([b"GET"])
        assert (second.status, second.value(b"connection")) == (200, b"close")
        assert await ending.seconds() == 3.0


async def test_a_connection_that_asks_nothing_is_closed_with_the_delay() -> None:
    loop = asyncio.get_running_loop()
    async with stage() as to, raw_client(to.port) as client:
        await turns()
        begun = loop.time()
        to.worker.control.drain.terminated()
        ending = Ending(to.worker)
        await client.read_to_end()
        assert (client.received, round(loop.time() - begun, 1)) == (b"", 3.0)
        assert await ending.seconds() == 3.0


async def test_readiness_fails_before_anything_else_happens() -> None:
    async with stage() as to:
        assert to.worker.datapath.is_ready
        to.worker.control.drain.terminated()
        assert not to.worker.datapath.is_ready
        assert (await to.ask()).status == 200
        await Ending(to.worker).seconds()


async def test_the_delay_is_counted_from_the_announcement() -> None:
    """A preStop hook announces the end while the app still works; SIGTERM comes when the app has gone."""
    async with stage() as to:
        await operator(to.worker).post("/drain")
        await asyncio.sleep(2)
        await operator(to.worker).post("/drain")  # said again, it counts from the first
        to.worker.control.drain.terminated()
        assert await Ending(to.worker).seconds() == 1.0


async def test_an_announcement_that_is_long_ago_leaves_nothing_to_wait_for() -> None:
    async with stage() as to:
        await operator(to.worker).post("/drain")
        await asyncio.sleep(10)
        to.worker.control.drain.terminated()
        assert await Ending(to.worker).seconds() == 0.0


async def test_quitquitquit_is_the_same_as_sigterm() -> None:
    async with stage() as to:
        await operator(to.worker).post("/quitquitquit")
        ending = Ending(to.worker)
        assert (await to.ask()).value(b"connection") == b"close"
        assert await ending.seconds() == 3.0


async def test_where_nobody_has_to_notice_there_is_no_delay() -> None:
    async with stage(header=delay("0s")) as to:
        await operator(to.worker).post("/quitquitquit")
        assert await Ending(to.worker).seconds() == 0.0


async def test_ctrl_c_does_not_wait_for_load_balancers() -> None:
    async with stage() as to:
        to.worker.control.drain.interrupted()
        assert await Ending(to.worker).seconds() == 0.0


async def test_ctrl_c_cuts_a_delay_short_that_the_api_began() -> None:
    async with stage() as to:
        to.worker.control.drain.begin("a test")
        ending = Ending(to.worker)
        await asyncio.sleep(1)
        to.worker.control.drain.interrupted()
        assert await ending.seconds() == 1.0


async def test_exchanges_have_the_whole_timeout_after_the_delay() -> None:
    async def slow(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(6)
            await peer.send(OK)

    async with stage(slow, header=delay("2s") + "drain_timeout: 5s\n") as to:
        asking = asyncio.create_task(to.ask())
        while not to.requests:
            await turns()
        to.worker.control.drain.terminated()
        assert await Ending(to.worker).seconds() == 6.0
        assert (await asking).status == 200


async def test_of_pipelined_requests_the_one_that_is_asked_is_answered_and_no_other_is_sent() -> None:
    """What a client has sent behind it, it may send again elsewhere: no upstream has seen it (RFC 9112 9.3.2)."""
    may_answer = asyncio.Event()

    async def held(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await may_answer.wait()
            await peer.send(OK)

    async with stage(held, header=delay("0s")) as to, raw_client(to.port) as client:
        await client.send(get(b"/1") + get(b"/2") + get(b"/3"))
        while not to.requests:
            await turns()
        to.worker.control.drain.terminated()
        ending = Ending(to.worker)
        may_answer.set()
        await client.read_to_end()
        (answer,) = await client.responses([b"GET"])
        assert (answer.status, answer.value(b"connection")) == (200, b"close")
        assert [request.target for request in to.requests] == [b"/1"]
        await ending.seconds()


@pytest.mark.parametrize(("open_for", "ends_after"), [(4.0, 4.0), (60.0, 10.0)])
async def test_a_tunnel_is_waited_for_as_long_as_an_exchange_is_and_then_cut(
    open_for: float, ends_after: float
) -> None:
    async with (
        stage(echoing, header=delay("0s") + "drain_timeout: 10s\n") as to,
        raw_client(to.port) as client,
    ):
        await client.send(UPGRADE)
        await head_of(client)
        to.worker.control.drain.terminated()
        ending = Ending(to.worker)
        await client.send(b"still")
        await expect(client, b"still")
        closing = asyncio.get_running_loop().call_later(open_for, client.writer.close)
        assert await ending.seconds() == ends_after
        closing.cancel()
        assert bool(to.worker.service.exchanges) is (open_for > ends_after)
        await to.worker.stop()
        assert not to.worker.service.exchanges


BOTH = """\
upstreams: {{app: {{endpoints: ["127.0.0.1:{0}"]}}, other: {{endpoints: ["127.0.0.1:{1}"]}}}}
routes: [{{name: app, upstream: app}}, {{name: other, listener: outbound, upstream: other}}]
"""


async def test_the_apps_own_calls_are_served_until_inbound_is_done() -> None:
    """What the app answers may need them (SPEC 9)."""
    may_answer = asyncio.Event()

    async def held(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await may_answer.wait()
            await peer.send(OK)

    async with (
        raw_upstream(held) as app,
        raw_upstream() as other,
        running(BOTH.format(app.port, other.port), delay("0s")) as worker,
        raw_client(port(worker)) as waiting,
    ):
        outbound = port(worker, "outbound")
        await waiting.send(get())
        while not app.requests:
            await turns()
        worker.control.drain.terminated()
        ending = Ending(worker)
        await asyncio.sleep(5)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port(worker))
        async with raw_client(outbound) as call:
            await call.send(get())
            (answer,) = await call.responses([b"GET"])
            assert (answer.status, answer.value(b"connection")) == (200, b"close")
        may_answer.set()
        await ending.seconds()
        assert (await waiting.responses([b"GET"]))[0].status == 200
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", outbound)


async def test_a_process_does_not_end_before_its_answers_have_been_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exchange is over as soon as all is written; what the kernel has not taken would be cut with the process."""
    size = 60_000
    listen = socket.socket.listen

    def listen_with_little_room(bound: socket.socket, *backlog: int) -> None:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # connections inherit it
        listen(bound, *backlog)

    async def long(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, bytes(size)))

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(socket.socket, "listen", listen_with_little_room)
    async with stage(long, header=delay("0s")) as to:
        with socket.socket() as client:
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await loop.sock_connect(client, ("127.0.0.1", to.port))
            await loop.sock_sendall(client, get())
            received = len(await loop.sock_recv(client, 1))
            to.worker.control.drain.terminated()
            ending = Ending(to.worker)
            while to.worker.service.exchanges:
                await turns()
            await asyncio.sleep(3)
            assert not ending.is_over, "no exchange is left, and the answer is not whole yet"
            while data := await loop.sock_recv(client, 65_536):
                received += len(data)
        assert received > size
        await ending.seconds()


async def test_who_waits_to_be_accepted_when_a_listener_ends_is_served_once() -> None:
    async with stage() as to:
        clients = [socket.create_connection(("127.0.0.1", to.port)) for _ in range(3)]
        for client in clients[:2]:
            client.sendall(get())
        to.worker.listeners["inbound"].stop_accepting()
        await asyncio.sleep(0.1)
        clients[2].sendall(get())  # a moment later than the others
        for client in clients:
            reader, writer = await asyncio.open_connection(sock=client)
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nConnection: close\r\n" in answer
            writer.close()


class Exited(BaseException):
    """In place of the end of the test's own process."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes of `os._exit`, which raises instead of ending."""
    codes: list[int] = []

    def leave(code: int) -> Any:
        codes.append(code)
        raise Exited

    monkeypatch.setattr(os, "_exit", leave)
    return codes


async def test_a_second_signal_ends_it_at_once(exits: list[int]) -> None:
    async with stage() as to:
        to.worker.control.drain.terminated()
        with pytest.raises(Exited):
            to.worker.control.drain.terminated()
        assert exits == [1]


async def test_a_second_signal_does_so_too_where_another_process_takes_over_between(exits: list[int]) -> None:
    async with stage() as to:
        to.worker.control.drain.terminated()
        await to.worker.control.hand_on()
        with pytest.raises(Exited):
            to.worker.control.drain.terminated()
        assert exits == [1]


@pytest.mark.parametrize("path", ["/drain", "/quitquitquit"])
async def test_the_first_signal_after_a_request_to_end_is_no_second_one(path: str, exits: list[int]) -> None:
    """An app ends its sidecar, and the kubelet does so too a moment later: nothing may be cut."""
    async with stage() as to:
        for _ in range(2):
            await operator(to.worker).post(path)
        to.worker.control.drain.terminated()
        assert exits == []
        await Ending(to.worker).seconds()
