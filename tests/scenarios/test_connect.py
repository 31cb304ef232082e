"""CONNECT to a host that a route names: requests in it are requests of that route, and the rest is a tunnel."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sidecar.core.errors import Reason
from sidecar.core.memory_budget import CONNECTION_BYTES
from sidecar.core.transition import State
from sidecar.downstream.opaque import OpaqueConnection
from sidecar.forwarding.attempt import Attempt
from sidecar.forwarding.connect import TunnelExchange
from sidecar.runtime.worker import Worker
from sidecar.transport.tls.files import server_context
from tests.scenarios.stage import hang
from tests.scenarios.test_pass_through import (
    Names,
    connect,
    connect_by_http2,
    error_of,
    head_of,
    passing,
    until,
)
from tests.support.authority import Authority
from tests.support.clean import Complaints, assert_clean
from tests.support.http2_ends import http2_client, reset
from tests.support.own_address import own_address
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawClient, RawPeer, RawUpstream, Script, raw_client, raw_upstream, turns
from tests.support.tls_client import TlsClient

GET = b"GET /inside HTTP/1.1\r\nHost: named.test\r\n\r\n"


@dataclass
class Tunnels:
    """A sidecar with a route for `named.test`, and what stands behind it."""

    worker: Worker
    app: RawUpstream
    names: Names

    @property
    def port(self) -> int:
        return port(self.worker, "outbound")

    async def routes(self) -> list[str | None]:
        """Of all requests and connections, once each has ended."""
        while self.worker.service.exchanges:
            await turns()
        return [one.name for one in self.worker.numbers.routes() for _ in range(sum(_counts(one)))]

    @asynccontextmanager
    async def tunnel(self, authority: bytes | None = None) -> AsyncIterator[RawClient]:
        """A client whose CONNECT was answered 200."""
        async with raw_client(self.port) as client:
            await client.send(connect(authority or b"named.test:%d" % self.app.port))
            head, rest = await head_of(client)
            assert (head.split(b"\r\n")[0], rest) == (b"HTTP/1.1 200 OK", b"")
            client.received = b""
            yield client


def _counts(route: object) -> list[int]:
    route.fold()  # type: ignore[attr-defined]
    return [sum(row.state[0]) for row in route.server.values()]  # type: ignore[attr-defined]


@asynccontextmanager
async def tunnels(
    script: Script = RawPeer.echo,
    *,
    header: str | None = None,
    match: str = "hosts: [named.test]",
    tls: ssl.SSLContext | None = None,
    is_gone: bool = False,
) -> AsyncIterator[Tunnels]:
    """`is_gone`: nobody listens where the route's upstream is said to be, which is tried again after a while."""
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with raw_upstream(script, tls, own_address()) as app:
            retry = ", retry: {attempts: 1, backoff: {base: 10s, max: 10s}}" if is_gone else ""
            if is_gone:
                async with raw_upstream(host=own_address()) as gone:
                    app.port = gone.port
            routes = f"""\
upstreams: {{named: {{endpoints: ["{own_address()}:{app.port}"]}}}}
routes: [{{name: named, listener: outbound, match: {{{match}}}, upstream: named{retry}}}]
"""
            async with running(routes, passing() if header is None else header) as worker:
                names = Names({"named.test": (own_address(),)})
                worker.assembly.passing.names = names
                yield Tunnels(worker, app, names)
                await assert_clean(worker)
        assert app.problems == []
    assert complaints.found == []


@pytest.mark.parametrize("header", [None, HEADER], ids=["pass_through", "refuse"])
async def test_a_request_in_the_tunnel_is_one_of_the_route(header: str | None) -> None:
    async with tunnels(header=header) as to:
        async with to.tunnel() as client:
            for _ in range(2):
                await client.send(GET)
                await until(client, b"GET /inside")
                client.received = b""
        assert await to.routes() == ["named", "named"]
        assert to.app.requests[0].value(b"x-envoy-expected-rq-timeout-ms") is not None


async def test_a_connect_by_http2_is_told_what_the_route_takes() -> None:
    async with tunnels(header=HEADER) as to, http2_client(to.port) as end:
        stream = await connect_by_http2(end, b"named.test:%d" % to.app.port)
        assert await stream.head() == 405
        detail = json.loads(await stream.read_to_end())["detail"]
        assert "takes this host" in detail
        assert "HTTP/1.1 in clear text alone" in detail
        stream = await connect_by_http2(end, b"other.test:80")
        assert await stream.head() == 405
        assert b"no route takes this CONNECT" in await stream.read_to_end()


async def test_a_request_in_pieces_is_waited_for() -> None:
    async with tunnels() as to, to.tunnel() as client:
        await client.send(GET, is_bytewise=True)
        await until(client, b"GET /inside")
        assert await to.routes() == ["named"]


async def test_a_request_that_comes_with_the_connect_is_one_of_the_route() -> None:
    async with tunnels() as to, raw_client(to.port) as client:
        await client.send(connect(b"named.test:80") + GET)
        await until(client, b"GET /inside")
        assert await to.routes() == ["named"]


async def test_a_connect_with_a_large_head_gives_its_memory_back() -> None:
    async with tunnels() as to:
        memory = to.worker.service.memory
        lines = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 900) for number in range(10))
        async with raw_client(to.port) as client:
            await client.send(b"CONNECT named.test:%d HTTP/1.1\r\nHost: named.test\r\n" % to.app.port)
            await client.send(lines + b"\r\n")
            assert await head_of(client) == (b"HTTP/1.1 200 OK", b"")
            assert memory.used_bytes == memory.connections * CONNECTION_BYTES
        await assert_clean(to.worker)
        assert memory.used_bytes == 0


async def test_the_breaker_of_the_route_holds_in_the_tunnel() -> None:
    async def failing(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    async with tunnels(failing) as to:
        async with to.tunnel() as client:
            for _ in range(6):
                await client.send(GET)
            responses = await client.responses([b"GET"] * 6)
        assert [one.status for one in responses] == [500] * 5 + [503]
        assert error_of(responses[5]) == (503, "destination_unavailable")
        assert to.worker.assembly.breakers["named", "named"].state is State.OPEN


async def test_a_request_for_another_host_goes_where_the_tunnel_leads() -> None:
    async with tunnels() as to:
        async with to.tunnel() as client:
            await client.send(b"GET /inside HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n")
            await until(client, b"GET /inside")
        assert await to.routes() == ["pass_through"]
        assert to.names.asked == ["named.test"]


@pytest.mark.parametrize(
    "first",
    [
        b"*1\r\n$4\r\nPING\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"PING\r\n",
        b"GET / HTTP/2.5\r\n",
        b"\x16\x03no",
    ],
)
async def test_what_is_no_http_goes_to_the_routes_upstream_as_it_is(first: bytes) -> None:
    async def answering(peer: RawPeer) -> None:
        await peer.read_some()
        await peer.send(b"+PONG\r\n")

    async with tunnels(answering) as to:
        async with to.tunnel() as client:
            await client.send(first)
            await until(client, b"+PONG\r\n")
            await client.read_to_end()
        assert to.app.received == first
        assert await to.routes() == ["named"]


async def test_tls_is_not_opened_and_goes_where_the_tunnel_leads(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, context = authority.pair("named.test"), server_context()
    context.load_cert_chain(pair.chain, pair.key)
    async with tunnels(tls=context) as to:
        async with to.tunnel() as client:
            secured = TlsClient(client.reader, client.writer, authority.trust, "named.test")
            await secured.handshake()
            assert (await secured.ask(GET)).body == b"GET /inside"
        assert await to.routes() == ["named"]


async def test_bytes_for_another_port_than_the_upstreams_go_to_that_port() -> None:
    """The route's upstream speaks HTTP; TLS of the same host has a port of its own."""

    async def other(peer: RawPeer) -> None:
        await peer.read_some()
        await peer.send(b"it is me\r\n")

    async with tunnels() as to, raw_upstream(other, host=own_address()) as beside:
        async with to.tunnel(b"named.test:%d" % beside.port) as client:
            await client.send(b"\0\1\2\3")
            await until(client, b"it is me\r\n")
            await client.read_to_end()
        assert to.app.peers == []
        assert await to.routes() == ["pass_through"]


async def test_a_route_that_asks_for_a_path_takes_no_bytes() -> None:
    async def answering(peer: RawPeer) -> None:
        await peer.read_some()
        await peer.send(b"+PONG\r\n")

    async with tunnels(answering, match="hosts: [named.test], path: {prefix: /v1}") as to:
        async with to.tunnel() as client:
            await client.send(b"*1\r\n$4\r\nPING\r\n")
            await until(client, b"+PONG\r\n")
            await client.read_to_end()
        assert await to.routes() == ["pass_through"]


async def test_a_server_may_speak_first_when_the_client_has_said_nothing_for_a_second() -> None:
    async def greeting(peer: RawPeer) -> None:
        await peer.send(b"220 hello\r\n")
        await peer.send(b"you said " + await peer.reader.readuntil(b"\n"))

    async with tunnels(greeting) as to:
        async with to.tunnel() as client:
            before = asyncio.get_running_loop().time()
            await until(client, b"220 hello\r\n")
            assert asyncio.get_running_loop().time() - before == pytest.approx(1.0, abs=0.3)
            await client.send(b"EHLO\n")
            await until(client, b"you said EHLO\n")
            await client.read_to_end()
        assert await to.routes() == ["named"]


async def test_a_server_at_an_opaque_port_is_not_waited_for() -> None:
    async def greeting(peer: RawPeer) -> None:
        await peer.send(b"220 hello\r\n")
        await peer.read_some()

    async with tunnels(greeting) as to:
        listener = to.worker.listeners["outbound"]
        listener.adopt(replace(listener.policy, opaque_ports=frozenset({to.app.port})))
        async with to.tunnel() as client:
            before = asyncio.get_running_loop().time()
            await until(client, b"220 hello\r\n")
            assert asyncio.get_running_loop().time() - before < 0.5


async def test_a_client_that_speaks_http_late_is_heard_all_the_same() -> None:
    """A pool that connects ahead: nobody says anything for a while, then a request comes."""
    async with tunnels() as to:
        async with to.tunnel() as client:
            await asyncio.sleep(5)
            await turns(20)
            assert len(to.app.peers) == 1, "its destination may have spoken first"
            await client.send(GET)
            await until(client, b"GET /inside")
        assert "named" in await to.routes()
        (seen,) = to.app.requests
        assert seen.value(b"x-envoy-expected-rq-timeout-ms") is not None, "it went by the route"


async def test_a_client_that_speaks_something_else_late_is_passed_on() -> None:
    async def answering(peer: RawPeer) -> None:
        await peer.read_some()
        await peer.send(b"+PONG\r\n")

    async with tunnels(answering) as to:
        async with to.tunnel() as client:
            await asyncio.sleep(5)
            await client.send(b"*1\r\n$4\r\nPING\r\n")
            await until(client, b"+PONG\r\n")
            await client.read_to_end()
        assert to.app.received == b"*1\r\n$4\r\nPING\r\n"


async def test_a_client_that_never_ends_its_first_line_is_passed_on() -> None:
    async def answering(peer: RawPeer) -> None:
        await peer.read_some()
        await peer.send(b"what?\r\n")

    async with tunnels(answering) as to, to.tunnel() as client:
        await client.send(b"HELLO")
        await until(client, b"what?\r\n")
        await client.read_to_end()
        assert to.app.received == b"HELLO"


async def test_a_client_that_only_listens_gets_what_there_is() -> None:
    async def greeting(peer: RawPeer) -> None:
        await peer.reader.read()
        await peer.send(b"time\r\n")

    async with tunnels(greeting) as to, to.tunnel() as client:
        client.writer.write_eof()
        await until(client, b"time\r\n")
        await client.read_to_end()


@pytest.mark.parametrize("protocol", ["http1", "http2"])
async def test_tunnels_are_shared_out_by_how_many_each_endpoint_has(protocol: str) -> None:
    """They may last for hours: whoever has more of them is to get no more."""
    async with raw_upstream(hang) as one, raw_upstream(hang) as other, AsyncExitStack() as clients:
        routes = f"""\
upstreams:
  named: {{endpoints: ["127.0.0.1:{one.port}", "127.0.0.1:{other.port}"], protocol: {protocol}}}
routes: [{{name: named, listener: outbound, upstream: named}}]
"""
        async with running(routes, HEADER) as worker:
            pools = worker.assembly.clusters["named"].pools
            for _ in range(20):
                client = await clients.enter_async_context(raw_client(port(worker, "outbound")))
                await client.send(connect(b"named.test:80"))
                await head_of(client)
                await client.send(b"\0\1\2\3")
                await turns(20)
            assert [len(one.peers), len(other.peers)] == [10, 10]
            assert [pool.in_flight for pool in pools] == [10, 10]
            await clients.aclose()
            await assert_clean(worker)


async def test_a_tunnel_that_leads_nowhere_is_reset() -> None:
    async with tunnels() as to:
        async with raw_upstream(host=own_address()) as gone:
            number = gone.port
        async with to.tunnel(b"named.test:%d" % number) as client:
            await client.send(b"\0\1\2\3")
            await client.read_to_end()
            assert client.is_reset
            assert client.received == b""


async def test_a_client_that_leaves_before_it_says_anything_leaves_nothing_behind() -> None:
    async with tunnels() as to:
        async with to.tunnel():
            pass
        async with to.tunnel() as client:
            await asyncio.sleep(2)
            client.writer.transport.abort()


async def test_a_silent_clients_tunnel_that_leads_nowhere_is_reset() -> None:
    """Its destination is tried because it says nothing."""
    async with tunnels() as to:
        async with raw_upstream(host=own_address()) as gone:
            number = gone.port
        async with to.tunnel(b"named.test:%d" % number) as client:
            await client.read_to_end()
            assert client.is_reset
            assert client.received == b""


async def test_a_silent_client_whose_destination_is_to_be_tried_again_may_leave() -> None:
    """There is a tunnel to be, and nobody in it yet who could be told."""
    async with tunnels(is_gone=True) as to:
        async with to.tunnel() as client:
            assert (await trying(to)).reason is Reason.CONNECTION_REFUSED
            reset(client.writer)
        await turns(20)
        assert to.worker.service.exchanges == set()


async def test_a_silent_client_whose_destination_is_to_be_tried_again_is_closed_for_memory() -> None:
    async with tunnels(is_gone=True) as to, to.tunnel() as client:
        await trying(to)
        (waiting,) = to.worker.listeners["outbound"].connections()
        assert isinstance(waiting, OpaqueConnection)
        assert waiting.end_for_memory() is not None
        await client.read_to_end()
        assert to.worker.service.exchanges == set()


async def trying(to: Tunnels) -> Attempt:
    """The first try to connect a silent client's tunnel; there will be another one within ten seconds."""
    await asyncio.sleep(1.1)
    (exchange,) = to.worker.service.exchanges
    assert isinstance(exchange, TunnelExchange)
    (attempt,) = exchange.attempts
    return attempt
