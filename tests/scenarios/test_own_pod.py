"""A call of the app to its own pod is met by the inbound listener, as one from another pod would be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sidecar.config.load import load_text
from sidecar.core.transition import State
from sidecar.downstream.http1 import ClientConnection
from sidecar.runtime.worker import Worker
from sidecar.transport import kernel
from tests.scenarios.operator import operator
from tests.scenarios.stage import OK, get, hang, saying, scraped
from tests.support.certificates import Certificates
from tests.support.clean import Complaints, assert_clean
from tests.support.own_address import own_address
from tests.support.ports import free_ports
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawPeer, RawUpstream, Script, raw_client, raw_upstream, turns


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for something to become true, in steps of virtual time."""
    for _ in range(10_000):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it has not become true")


FAILURE = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Own:
    """A pod whose app is called through the outbound listener, by the pod's own address."""

    worker: Worker
    app: RawUpstream
    text: str

    def cluster(self, name: str = "own") -> Any:
        return self.worker.assembly.clusters[name]

    async def call(self, data: bytes = get(b"/call"), method: bytes = b"GET") -> Any:
        async with raw_client(port(self.worker, "outbound")) as client:
            await client.send(data)
            (response,) = await client.responses([method])
            return response

    def taken(self) -> dict[str, int]:
        """Requests so far, by route."""
        routes = list(self.worker.numbers.routes())
        for route in routes:
            route.fold()
        found = {route.name: sum(sum(row.counts) for row in route.server.values()) for route in routes}
        return {name: count for name, count in found.items() if count}

    async def reload(self, old: str, new: str) -> None:
        assert old in self.text
        self.text = self.text.replace(old, new)
        await self.worker.datapath.install(load_text(self.text).snapshot)


def routes(app: int, *, out: str = "", into: str = "", own: str = "", more: str = "") -> str:
    """The app behind the inbound listener, and the same by the pod's address for its own calls."""
    return f"""\
upstreams:
  app: {{endpoints: ["127.0.0.1:{app}"]}}
  own: {{endpoints: ["{own_address()}:{app}"]{own}}}
routes:
- {{name: in, upstream: app{into}}}
- {{name: out, listener: outbound, upstream: own{out}}}
{more}"""


def header(inbound: str = "unmatched: pass_through") -> str:
    """`inbound`: further keys of that listener, which has all connections to the pod sent to it unless they say
    otherwise."""
    return HEADER.replace(
        'inbound: {address: "127.0.0.1:0"}', f'inbound: {{address: "0.0.0.0:0", {inbound}}}'
    )


@asynccontextmanager
async def own_pod(
    script: Script = RawPeer.echo, *, inbound: str = "unmatched: pass_through", **keys: str
) -> AsyncIterator[Own]:
    """In the end nothing may be left but idle connections, and nobody may have complained."""
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with raw_upstream(script, host="0.0.0.0") as app:
            text = routes(app.port, **keys)
            async with running(text, header(inbound)) as worker:
                yield Own(worker, app, header(inbound) + text)
                worker.assembly.close_all_idle()
                await assert_clean(worker, idle=0)
        assert app.problems == []
    assert complaints.found == []


# What it goes through


async def test_a_call_to_the_own_pod_has_both_routes_one_trace_and_less_time_at_each() -> None:
    async with own_pod() as to:
        lines = (
            b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"x-request-timeout-ms: 500",
        )
        assert (await to.call(get(b"/call", *lines))).body == b"GET /call"
        assert to.taken() == {"out": 1, "in": 1}
        (seen,) = to.app.requests
        assert (seen.value(b"traceparent") or b"").split(b"-")[1] == b"4bf92f3577b34da6a3ce929d0e0e4736"
        assert seen.value(b"x-forwarded-for") == own_address().encode()
        assert b",".join(seen.values(b"via")).count(b"sidecar") == 2
        assert 0 < int(seen.value(b"x-envoy-expected-rq-timeout-ms") or 0) < 500


async def test_its_connections_are_used_again_and_counted() -> None:
    async with own_pod() as to:
        for _ in range(3):
            assert (await to.call()).status == 200
        assert (to.cluster().departure.in_process, to.cluster().connections) == (1, 1)
        assert to.cluster("app").departure.in_process == 0, "the app itself is reached directly"
        assert to.worker.listeners["inbound"].connection_count == 1
        assert len(to.app.peers) == 1
        by_name = {
            one["name"]: one["endpoints"]
            for one in (await operator(to.worker).get("/upstreams"))["upstreams"]
        }
        assert [one["own_pod"] for name in ("own", "app") for one in by_name[name]] == [True, False]
        assert scraped(to.worker, 'sidecar_upstream_in_process_total{sidecar_upstream="own"') == 1


async def test_the_breakers_of_both_sides_judge_it() -> None:
    breaker = ", circuit_breaker: {minimum_calls: 2, consecutive_failures: 2}"
    async with own_pod(saying(FAILURE), into=breaker, out=", circuit_breaker: {mode: disabled}") as to:
        statuses = [(await to.call()).status for _ in range(4)]
        assert statuses == [500, 500, 503, 503]
        assert to.worker.assembly.breakers["in", "app"].state is State.OPEN
        assert len(to.app.requests) == 2


@pytest.mark.parametrize("version", ["http1", "http2"])
async def test_bodies_pass_both_ways(version: str) -> None:
    async with own_pod(own=f", protocol: {version}") as to:
        body = b"x" * 300_000
        head = b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert (await to.call(head + body, b"POST")).status == 200
        assert to.app.requests[0].body == body
        assert (to.cluster().departure.in_process, to.taken()) == (1, {"out": 1, "in": 1})


async def test_a_caller_who_leaves_is_gone_on_both_sides() -> None:
    async with own_pod(hang) as to:
        async with raw_client(port(to.worker, "outbound")) as client:
            await client.send(get(b"/slow"))
            while not to.app.peers:
                await turns()
        await until(lambda: not to.worker.service.exchanges and not to.app.open_count)


async def test_a_caller_who_leaves_while_its_body_is_not_taken_is_gone_on_both_sides() -> None:
    """The inbound side does not read meanwhile, so it has to ask the kernel whether its caller is still there."""

    async def deaf(peer: RawPeer) -> None:
        await peer.head()
        await asyncio.Event().wait()

    long = ", timeouts: {request: 1h, idle: 1h}"
    async with own_pod(deaf, into=long, out=long) as to:
        async with raw_client(port(to.worker, "outbound")) as client:
            client.writer.write(b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 90000000\r\n\r\n")
            client.writer.write(b"x" * 16_000_000)
            await asyncio.sleep(1)  # virtual: it goes by when nothing moves any more
            (inbound,) = to.worker.listeners["inbound"].connections()
            assert isinstance(inbound, ClientConnection)
            assert inbound._pauses
            assert client.writer.transport.get_write_buffer_size()
            kernel.set_reset_on_close(client.writer.transport)
            client.writer.transport.abort()
        before = asyncio.get_running_loop().time()
        await until(lambda: not to.worker.service.exchanges)
        assert asyncio.get_running_loop().time() - before < 30
        for peer in to.app.peers:
            peer.writer.transport.abort()


# Which listener, and when there is none


async def test_the_port_of_the_listener_itself_is_reached_in_process() -> None:
    (own,) = free_ports(1)
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with raw_upstream() as app:
            text = routes(app.port).replace(f"{own_address()}:{app.port}", f"{own_address()}:{own}")
            top = header("unmatched: refuse").replace("0.0.0.0:0", f"0.0.0.0:{own}")
            async with running(text, top) as worker:
                to = Own(worker, app, text)
                assert (await to.call()).status == 200
                assert (to.cluster().departure.in_process, to.taken()) == (1, {"out": 1, "in": 1})
                worker.assembly.close_all_idle()
                await assert_clean(worker)
    assert complaints.found == []


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"inbound": "unmatched: refuse"}, id="without interception callers reach the app"),
        pytest.param({"into": ", match: {port: 9}"}, id="no route takes that port"),
        pytest.param(
            {"more": "- {name: also, upstream: own, match: {path: {prefix: /also}}}\n"},
            id="it is the app's own",
        ),
    ],
)
async def test_what_no_inbound_listener_stands_for_is_reached_by_the_network(keys: dict[str, str]) -> None:
    async with own_pod(**keys) as to:
        assert (await to.call()).status == 200
        assert (to.cluster().departure.in_process, to.taken()) == (0, {"out": 1})


async def test_a_process_that_takes_no_connections_of_the_listener_uses_the_network() -> None:
    """Control beside several workers, which checks the health of endpoints."""
    async with own_pod() as to:
        listener = to.worker.listeners["inbound"]
        assert listener.queues.bound is not None
        listener.queues.bound = replace(listener.queues.bound, accepts=False)
        assert (await to.call()).status == 200
        assert to.taken() == {"out": 1}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
async def test_loopback_means_the_app(host: str) -> None:
    async with own_pod() as to:
        await to.reload(f'["{own_address()}:', f'["{host}:')
        assert (await to.call()).status == 200
        assert (to.cluster().departure.in_process, to.taken()) == (0, {"out": 1})


async def test_a_route_that_asks_for_the_port_takes_what_was_going_there() -> None:
    async with own_pod(into=", match: {port: 7777}") as to:
        await to.reload(f'["{own_address()}:{to.app.port}"]', f'["{own_address()}:7777"]')
        assert (await to.call()).status == 200
        assert to.taken() == {"out": 1, "in": 1}


async def test_an_upstream_of_wherever_the_call_was_going_has_every_port_of_the_pod() -> None:
    async with own_pod() as to:
        await to.reload(f'app: {{endpoints: ["127.0.0.1:{to.app.port}"]}}', "app: {endpoints: [original]}")
        assert (await to.call()).status == 200
        assert to.taken() == {"out": 1, "in": 1}
        assert to.app.requests[0].value(b"x-forwarded-for") == own_address().encode()


async def test_our_own_ports_are_no_ports_of_the_app() -> None:
    async with own_pod() as to:
        await to.reload(f'app: {{endpoints: ["127.0.0.1:{to.app.port}"]}}', "app: {endpoints: [original]}")
        outbound = port(to.worker, "outbound")
        await to.reload(f'["{own_address()}:{to.app.port}"]', f'["{own_address()}:{outbound}"]')
        assert (await to.call()).status == 502
        assert to.cluster().departure.in_process == 0


# TLS


async def test_the_tls_rules_of_the_listener_hold(tmp_path: Any) -> None:
    made = Certificates(tmp_path)
    server, client, stranger = (
        made.pair("s", "own.test"),
        made.pair("c", "spiffe://a/ns/b"),
        made.pair("o", "o"),
    )
    rules = f'tls: {{certificate: {{chain: "{server.chain}", key: "{server.key}"}}, client_ca: "{made.ca}", '
    inbound = f"unmatched: pass_through, {rules}client: require}}"

    def shown(pair: Any) -> str:
        own = f'certificate: {{chain: "{pair.chain}", key: "{pair.key}"}}'
        return f'tls: {{ca: "{made.ca}", server_name: own.test, {own}}}'

    own = f", {shown(client)}"
    async with own_pod(inbound=inbound, own=own, into=', match: {client: ["spiffe://a/ns/b"]}') as to:
        assert (await to.call()).status == 200
        assert (to.cluster().departure.in_process, to.taken()) == (1, {"out": 1, "in": 1})
        await to.reload(shown(client), shown(stranger))
        assert (await to.call()).status == 404, "another identity"
        await to.reload(f", {shown(stranger)}", "")
        assert (await to.call()).status == 200, "the app's own port, in clear text"
        assert to.taken()["in"] == 1


# Loops, limits, reload, drain


async def test_a_call_that_goes_round_ends_with_508() -> None:
    outbound: list[int] = []

    async def proxying(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            via = b"via: " + b", ".join(request.values(b"via"))
            async with raw_client(outbound[0]) as client:
                await client.send(get(b"/round", via))
                (answer,) = await client.responses([b"GET"])
            await peer.send(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % answer.status)

    async with own_pod(proxying) as to:
        outbound.append(port(to.worker, "outbound"))
        assert (await to.call()).status == 508
        assert 1 < to.taken()["in"] < 10


@pytest.mark.parametrize("version", ["http1", "http2"])
async def test_its_connections_are_the_last_that_are_closed_to_give_memory_back(version: str) -> None:
    async with own_pod(own=f", protocol: {version}") as to, raw_client(port(to.worker, "outbound")) as client:
        await client.send(get(b"/call"))
        assert [answer.status for answer in await client.responses([b"GET"])] == [200]
        now = asyncio.get_running_loop().time()
        claims = [
            one.claim(now)
            for name in ("inbound", "outbound")
            for one in to.worker.listeners[name].connections()
        ]
        assert [claim is not None and claim.is_own for claim in claims] == [True, False]


async def test_without_room_for_the_inbound_side_it_is_our_own_lack() -> None:
    async with own_pod() as to:
        service = to.worker.service
        async with raw_client(port(to.worker, "outbound")) as client:
            while service.open_connections < 1:
                await turns()
            service.max_open_connections, before = 1, service.max_open_connections
            await client.send(get(b"/call"))
            (response,) = await client.responses([b"GET"])
            service.max_open_connections = before
        assert response.status == 503
        assert to.worker.assembly.breakers["out", "own"].tally.failed == 0
        assert (await to.call()).status == 200


async def test_beyond_the_listeners_limit_the_connection_is_refused_and_counted() -> None:
    limit = "unmatched: pass_through, limits: {connections: 1}"
    async with own_pod(hang, inbound=limit, out=", timeouts: {request: 2s}") as to:
        first = asyncio.create_task(to.call())
        while not to.app.peers:
            await turns()
        assert (await to.call()).status == 503
        assert to.worker.listeners["inbound"].refused_connections >= 1
        assert (await first).status == 504


async def test_a_reload_that_changes_who_stands_there_is_followed_by_new_connections() -> None:
    async with own_pod() as to:
        assert (await to.call()).status == 200
        await to.reload("unmatched: pass_through", "unmatched: refuse")
        to.worker.assembly.close_all_idle()
        assert (await to.call()).status == 200
        assert to.taken() == {"out": 2, "in": 1}
        await to.reload("unmatched: refuse", "unmatched: pass_through")
        to.worker.assembly.close_all_idle()
        assert (await to.call()).status == 200
        assert to.taken() == {"out": 3, "in": 2}


async def test_an_upstream_that_inbound_routes_begin_to_use_keeps_no_way_back_in() -> None:
    async with own_pod() as to:
        assert (await to.call()).status == 200
        await to.reload("{name: in, upstream: app}", "{name: in, upstream: own}")
        assert (await to.call()).status == 200
        assert to.taken() == {"out": 2, "in": 1}
        assert to.cluster().departure.in_process == 0


async def test_a_drain_ends_the_connections_within_the_process_too() -> None:
    async with own_pod(saying(OK)) as to:
        assert (await to.call()).status == 200
        assert to.worker.listeners["inbound"].connection_count == 1
        to.worker.listeners["inbound"].stop_accepting()
        await until(lambda: not to.worker.listeners["inbound"].connection_count)
        await until(lambda: to.cluster().connections == 0)
