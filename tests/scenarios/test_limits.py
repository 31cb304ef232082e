"""Every limit holds at its number, and every timeout of a connection at its time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import cast

import pytest

from sidecar.config.load import load_text
from sidecar.core import deadline
from sidecar.core.ejection.change import Health
from sidecar.downstream.http1 import ClientConnection
from tests.scenarios.stage import OK, Stage, app_routes, get, hang, inbound, post, saying, stage
from tests.support.clean import Complaints, assert_clean
from tests.support.loop import JumpingLoop
from tests.support.ports import free_ports
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawPeer, Response, ask, raw_client, raw_upstream, turns


def error_of(response: Response) -> bytes:
    """The `error` of an answer's `Proxy-Status`."""
    value = response.value(b"proxy-status") or b""
    assert value.startswith(b"sidecar; error=")
    return value.split(b";")[1].partition(b"=")[2]


# Of one request


@pytest.mark.parametrize(("extra", "status"), [(0, 200), (1, 414)])
async def test_a_target_may_be_as_long_as_the_limit(extra: int, status: int) -> None:
    async with stage(header=inbound("limits: {url: 100B}")) as to:
        response = await to.ask(get(b"/" + b"a" * (99 + extra)))
        assert response.status == status


@pytest.mark.parametrize(("extra", "status"), [(0, 200), (1, 431)])
async def test_there_may_be_as_many_fields_as_the_limit(extra: int, status: int) -> None:
    async with stage(header=inbound("limits: {headers: 10}")) as to:
        response = await to.ask(get(b"/", *[b"x-%d: 1" % number for number in range(9 + extra)]))
        assert response.status == status


@pytest.mark.parametrize(("size", "status"), [(1500, 200), (3000, 431)])
async def test_a_head_may_be_as_large_as_the_limit(size: int, status: int) -> None:
    async with stage(header=inbound("limits: {head: 2KiB}")) as to:
        assert (await to.ask(get(b"/", b"x-large: " + b"a" * size))).status == status


async def test_a_head_without_end_is_refused_when_it_reaches_the_limit() -> None:
    async with stage(header=inbound("limits: {head: 2KiB}")) as to, raw_client(to.port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for _ in range(100):
            await client.send(b"x-more: " + b"a" * 90 + b"\r\n")
        await client.read_to_end()
        assert client.received.startswith(b"HTTP/1.1 431 ")
        assert to.requests == []


async def test_an_empty_line_between_requests_is_no_head_that_takes_too_long() -> None:
    async with stage(header=inbound("timeouts: {head: 2s, idle: 5s}")) as to, raw_client(to.port) as client:
        for count, request in ((1, post(b"data")), (2, get()), (3, get())):
            await client.send(request)
            answers = await client.responses([b"POST", b"GET", b"GET"][:count])
            assert [answer.status for answer in answers] == [200] * count
            await client.send(b"\r\n")
            await asyncio.sleep(4)  # longer than a head may take, shorter than a connection may be idle


async def test_empty_lines_do_not_keep_a_connection_that_asks_nothing() -> None:
    async with stage(header=inbound("timeouts: {head: 2s, idle: 5s}")) as to, raw_client(to.port) as client:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not to.worker.listeners["inbound"].connection_count:
            await turns()
        while to.worker.listeners["inbound"].connection_count:
            await client.send(b"\r\n")
            await asyncio.sleep(1)
        assert 5 - 1e-6 <= loop.time() - began <= 7
        await client.read_to_end()
        assert client.received == b""


async def test_what_follows_a_refused_request_is_not_answered() -> None:
    async with stage(header=inbound("limits: {url: 100B}")) as to, raw_client(to.port) as client:
        await client.send(get(b"/1") + get(b"/" + b"a" * 100) + get(b"/3"))
        await client.read_to_end()
        first, refused = await client.responses([b"GET", b"GET"])
        assert (first.status, refused.status, refused.value(b"connection")) == (200, 414, b"close")
        assert [request.target for request in to.requests] == [b"/1"]


@pytest.mark.parametrize(
    ("second", "status"),
    [
        (get(b"/" + b"a" * 17_000), 414),
        (get(b"/", *[b"x-%d: 1" % number for number in range(200)]), 431),
        (get(b"/", *[b"x-%d: %b" % (number, b"a" * 1000) for number in range(70)]), 431),
    ],
    ids=["url", "fields", "head"],
)
async def test_the_limits_hold_for_a_pipelined_request_too(second: bytes, status: int) -> None:
    async with stage() as to:
        first, refused = await to.ask_all(get(b"/1") + second, [b"GET", b"GET"])
        assert (first.status, refused.status) == (200, status)
        assert [request.target for request in to.requests] == [b"/1"]


# Of a listener


async def test_a_listener_takes_as_many_connections_as_its_limit() -> None:
    async with stage(header=inbound("limits: {connections: 2}")) as to:
        async with raw_client(to.port) as first, raw_client(to.port) as second:
            await turns(10)
            async with raw_client(to.port) as third:
                await third.send(get())
                assert [answer.status for answer in await third.responses([b"GET"])] == [503]
            assert to.worker.listeners["inbound"].refused_connections == 1
            for client in (first, second):
                await client.send(get())
                assert [answer.status for answer in await client.responses([b"GET"])] == [200]
        await turns(10)
        assert (await to.ask()).status == 200


async def test_a_head_that_takes_too_long_is_answered_408() -> None:
    async with stage(header=inbound("timeouts: {head: 3s}")) as to, raw_client(to.port) as client:
        began = asyncio.get_running_loop().time()
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        await client.read_to_end()
        assert 3 - 1e-6 <= asyncio.get_running_loop().time() - began <= 5
        (response,) = await client.responses([b"GET"])
        assert (response.status, error_of(response)) == (408, b"http_request_error")
        assert response.value(b"connection") == b"close"


async def test_a_head_that_comes_byte_by_byte_has_no_more_time_than_any_other() -> None:
    async with stage(header=inbound("timeouts: {head: 3s}")) as to, raw_client(to.port) as client:

        async def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nHost: x\r\n":
                await client.send(bytes([byte]))
                await asyncio.sleep(0.5)

        dripping = asyncio.create_task(drip())
        await client.read_some()
        dripping.cancel()
        assert client.received.startswith(b"HTTP/1.1 408 ")
        assert to.requests == []


async def test_a_connection_without_a_request_is_closed_when_its_idle_time_is_up() -> None:
    loop = asyncio.get_running_loop()
    async with stage(header=inbound("timeouts: {idle: 5s}")) as to:
        async with raw_client(to.port) as silent:
            began = loop.time()
            await silent.read_to_end()
            assert 5 - 1e-6 <= loop.time() - began <= 7
            assert silent.received == b""
        async with raw_client(to.port) as client:
            await client.send(get())
            await client.responses([b"GET"])
            began = loop.time()
            await client.read_to_end()
            assert 4 <= loop.time() - began <= 7
            assert len(await client.responses([b"GET"])) == 1


async def test_a_body_that_stalls_is_answered_408_and_its_upstream_connection_closed() -> None:
    async with stage(hang, header=inbound("timeouts: {body: 3s}")) as to, raw_client(to.port) as client:
        began = asyncio.get_running_loop().time()
        await client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        await client.read_to_end()
        assert 2 - 1e-6 <= asyncio.get_running_loop().time() - began <= 5
        (response,) = await client.responses([b"PUT"])
        assert (response.status, error_of(response)) == (408, b"http_request_error")
        await turns()
        assert to.app.open_count == 0
        assert to.breaker.state.value == "closed"


async def test_a_client_that_takes_nothing_of_its_answer_is_cut() -> None:
    block = bytes(65536)
    closed = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                peer.writer.write(block)
                await peer.writer.drain()
        finally:
            closed.set()

    async with stage(script, header=inbound("timeouts: {body: 2s}")) as to, raw_client(to.port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(get())
        while not to.app.peers:
            await turns()
        (connection,) = to.worker.listeners["inbound"].connections()
        await closed.wait()
        assert (
            asyncio.get_running_loop().time() - connection._since <= 5
        )  # since the kernel took the last bytes
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        size = 0
        with contextlib.suppress(ConnectionError):
            while data := await client.reader.read(1 << 20):
                size += len(data)
        assert size < 1_000_000_000


# Of a route


async def test_an_exchange_in_which_nothing_moves_is_cut_by_the_routes_idle_timeout() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await peer.read_some()

    async with stage(script, route="timeouts: {request: 60s, idle: 2s}") as to, raw_client(to.port) as client:
        began = asyncio.get_running_loop().time()
        await client.send(get())
        await client.read_to_end()
        assert 2 - 1e-6 <= asyncio.get_running_loop().time() - began <= 2.6
        (response,) = await client.responses([b"GET"])
        assert (client.received[-8:], response.is_cut) == (b"\r\n\r\nhalf", True)
        assert to.app.open_count == 0


async def test_an_exchange_in_which_something_moves_outlives_the_idle_timeout() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        for _ in range(4):
            await asyncio.sleep(0.9)
            await peer.send(b"x")
        await peer.read_some()

    async with stage(script, route="timeouts: {request: 60s, idle: 1s}") as to:
        assert (await to.ask()).body == b"xxxx"


# Of an upstream


async def occupy(to: Stage, count: int) -> list[asyncio.Task[Response]]:
    """Requests that the app has not answered yet."""
    tasks = []
    for _ in range(count):
        tasks.append(asyncio.create_task(to.ask()))
        await turns(20)
    return tasks


@pytest.mark.parametrize(
    ("limits", "served"),
    [
        ("{max_requests: 2}", 2),
        ("{max_connections: 2, max_pending: 1}", 3),
        ("{max_connections: 1, max_pending: 2}", 3),
    ],
)
async def test_what_is_beyond_an_upstreams_limits_is_refused_at_once(limits: str, served: int) -> None:
    gate = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await gate.wait()
            await peer.send(OK)

    async with stage(script, upstream=f"limits: {limits}") as to:
        tasks = await occupy(to, served)
        refused = await to.ask()
        assert (refused.status, error_of(refused)) == (503, b"connection_limit_reached")
        assert refused.value(b"retry-after") == b"1"
        assert b'"type": "urn:sidecar:problem:overloaded"' in refused.body
        assert to.cluster.overflows == 1
        gate.set()
        assert [answer.status for answer in await asyncio.gather(*tasks)] == [200] * served
        assert (await to.ask()).status == 200
        assert to.breaker.state.value == "closed"


async def test_limits_never_trip_the_breaker_however_often_they_refuse() -> None:
    gate = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await gate.wait()
            await peer.send(OK)

    async with stage(script, upstream="limits: {max_requests: 1}") as to:
        tasks = await occupy(to, 1)
        assert {(await to.ask()).status for _ in range(30)} == {503}
        gate.set()
        await asyncio.gather(*tasks)
        assert (await to.ask()).status == 200
        assert to.breaker.state.value == "closed"


async def test_bad_input_is_counted_with_its_reason_and_costs_the_others_nothing() -> None:
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with (
            stage(saying(OK), header=inbound("limits: {url: 100B}")) as to,
            raw_client(to.port) as good,
        ):
            for data in (b"nonsense\r\n\r\n", get(b"/" + b"a" * 200), get(b"/", b"bad name: x")):
                async with raw_client(to.port) as bad:
                    await bad.send(data)
                    await bad.read_to_end()
            await good.send(get())
            assert [answer.status for answer in await good.responses([b"GET"])] == [200]
            unrouted = "http_server_request_duration_seconds_count{http_request_method="
            assert to.metric(unrouted) == 3
    assert complaints.found == []


# Waiting in line


async def test_hundreds_in_line_who_run_out_of_time_together_leave_nothing_behind() -> None:
    """A connection comes free when none of them has the millisecond left that sending needs."""
    may_answer = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await may_answer.wait()
            await peer.send(OK)

    loop = cast(JumpingLoop, asyncio.get_running_loop())
    crowd = 400
    async with stage(script, upstream="limits: {max_connections: 1}") as to, raw_client(to.port) as first:
        await first.send(get(b"/first"))
        while not to.requests:
            await turns()
        async with contextlib.AsyncExitStack() as clients:
            late = [await clients.enter_async_context(raw_client(to.port)) for _ in range(crowd)]
            for client in late:
                await client.send(get(b"/late", b"x-request-timeout-ms: 1000"))
            while to.cluster.pending < crowd:
                await turns()
            soonest = min(one.attempts[0].fails_at for one in to.worker.service.exchanges)
            loop.jump(soonest - loop.time() - deadline.MIN_SEND_SECONDS / 2)
            may_answer.set()
            answers = [await client.responses([b"GET"]) for client in (first, *late)]
        assert [answer.status for (answer,) in answers] == [200] + [504] * crowd
        assert [request.target for request in to.requests] == [b"/first"]


async def test_a_connection_to_an_endpoint_that_is_left_out_is_not_given_to_who_waits() -> None:
    """What fails at once comes free first."""

    async def slowly(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(0.05)
            await peer.send(OK)

    bad = saying(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")
    async with raw_upstream(slowly) as one, raw_upstream(slowly) as two, raw_upstream(bad) as three:
        endpoints = ", ".join(f'"127.0.0.1:{app.port}"' for app in (one, two, three))
        routes = f"""\
upstreams: {{app: {{endpoints: [{endpoints}], limits: {{max_connections: 4}}, ejection: {{base: 250s}}}}}}
routes: [{{name: app, upstream: app}}]
"""
        async with running(routes) as worker:

            async def answers(count: int) -> list[int]:
                async with raw_client(port(worker)) as client:
                    statuses = []
                    for _ in range(count):
                        await client.send(post(b"x"))
                        (answer,) = await client.responses([b"POST"])
                        statuses.append(answer.status)
                        client.received = b""
                    return statuses

            found = await asyncio.gather(*[answers(40) for _ in range(12)])
            failed = sum(status != 200 for statuses in found for status in statuses)
            assert worker.assembly.clusters["app"].peers.ejected == 1
            assert failed == len(three.requests) < 5 + 12, "those that chose it before it was left out"
            await assert_clean(worker)


async def test_an_endpoint_that_refuses_who_stood_in_line_is_left_out() -> None:
    """Where each answer ends its connection, all connections are opened for who waits."""

    async def script(peer: RawPeer) -> None:
        await peer.request()
        await asyncio.sleep(0.05)
        await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    (dead,) = free_ports(1)
    async with raw_upstream(script) as one:
        routes = f"""\
upstreams:
  app:
    endpoints: ["127.0.0.1:{one.port}", "127.0.0.1:{dead}"]
    limits: {{max_connections: 2}}
    ejection: {{base: 250s}}
routes: [{{name: app, upstream: app, circuit_breaker: {{warm_up: off}}}}]
"""
        async with running(routes) as worker:
            asked = [ask(port(worker), post(b"x")) for _ in range(60)]
            assert [answer.status for answer in await asyncio.gather(*asked)] == [200] * 60
            members = worker.assembly.clusters["app"].peers.members.values()
            (refusing,) = (one for one in members if one.failed)
            assert refusing.health is Health.EJECTED
            assert refusing.failed <= 6, "but for one that was under way, who waits goes elsewhere by then"
            await assert_clean(worker)


async def test_who_waits_in_line_goes_on_when_a_reload_raises_the_limit() -> None:
    may_answer = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            if request.target == b"/slow":
                await may_answer.wait()
            await peer.send(OK)

    async with (
        stage(script, upstream="limits: {max_connections: 1}") as to,
        raw_client(to.port) as slow,
        raw_client(to.port) as waiting,
    ):
        await slow.send(get(b"/slow"))
        while not to.requests:
            await turns()
        await waiting.send(get())
        while not to.cluster.pending:
            await turns()
        raised = app_routes(to.app.port, upstream="limits: {max_connections: 2}")
        await to.worker.control.active.install(load_text(HEADER + raised).snapshot)
        assert [answer.status for answer in await waiting.responses([b"GET"])] == [200]
        may_answer.set()
        assert [answer.status for answer in await slow.responses([b"GET"])] == [200]


async def test_looks_for_a_client_that_has_left_do_not_pile_up() -> None:
    loop = asyncio.get_running_loop()
    async with stage(hang) as to, raw_client(to.port) as client:
        await client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        while not to.app.peers:
            await turns()
        (connection,) = to.worker.listeners["inbound"].connections()
        for _ in range(100):
            connection.hold()
            connection.resume()
        connection.hold()
        scheduled = loop._scheduled  # type: ignore[attr-defined]
        timers = [one for one in scheduled if not one.cancelled() and "_look_for_end" in repr(one)]
        connection.resume()
        assert len(timers) == 1


@contextlib.asynccontextmanager
async def narrow_client(to: Stage) -> AsyncIterator[tuple[socket.socket, ClientConnection]]:
    """A client between whom and the sidecar the kernel holds next to nothing."""
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", to.port))
        await turns()
        (connection,) = to.worker.listeners["inbound"].connections()
        sock = connection.link._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        yield client, connection


async def test_a_client_that_never_takes_the_rest_is_not_kept_for_ever() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n" + bytes(4096)
    loop = asyncio.get_running_loop()
    header = inbound("timeouts: {body: 30s, idle: 75s}")
    async with stage(saying(answer), header=header) as to, narrow_client(to) as (client, connection):
        sent = 0
        while not connection.link.unsent_bytes:
            await loop.sock_sendall(client, get())
            sent += 1
            while len(to.requests) < sent or connection._exchange is not None:
                await turns()
        await asyncio.sleep(600)
        assert to.worker.listeners["inbound"].connection_count == 0


async def test_a_slow_client_that_takes_its_answer_is_not_cut() -> None:
    size = 400_000

    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))

    loop = asyncio.get_running_loop()
    header, route = inbound("timeouts: {body: 30s}"), "timeouts: {request: 1h}"
    async with stage(script, header=header, route=route) as to, narrow_client(to) as (client, _):
        await loop.sock_sendall(client, get())
        taken = 0
        while taken < 24_000:  # 48 s
            data = await loop.sock_recv(client, 1024)
            assert data, taken
            taken += len(data)
            await asyncio.sleep(2)
