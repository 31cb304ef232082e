"""Which upstream, and which of its endpoints, gets a request."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from sidecar.config.load import load_text
from tests.scenarios.stage import OK, get, scraped, tried_again
from tests.support.clean import assert_clean
from tests.support.ports import free_ports
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawPeer, RawUpstream, raw_client, raw_upstream, turns


async def ask(to: int, target: bytes = b"/") -> int:
    async with raw_client(to) as client:
        await client.send(get(target))
        (response,) = await client.responses([b"GET"])
        return response.status


def routes_to(*ports: int) -> str:
    endpoints = ", ".join(f'"127.0.0.1:{one}"' for one in ports)
    return f"""\
upstreams: {{app: {{endpoints: [{endpoints}]}}}}
routes: [{{name: app, upstream: app}}]
"""


async def test_all_endpoints_get_their_share() -> None:
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(raw_upstream()) for _ in range(3)]
        worker = await stack.enter_async_context(running(routes_to(*(app.port for app in apps))))
        async with raw_client(port(worker)) as client:
            for number in range(300):
                client.received = b""
                await client.send(get(b"/%d" % number))
                await client.responses([b"GET"])
        counts = [len(app.requests) for app in apps]
        assert sum(counts) == 300
        assert min(counts) > 50
        await assert_clean(worker)


async def test_a_busy_endpoint_is_avoided_by_power_of_two_choices() -> None:
    gate = asyncio.Event()

    async def stuck(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await gate.wait()
            await peer.send(OK)

    async with (
        raw_upstream(stuck) as slow,
        raw_upstream() as fast,
        running(routes_to(slow.port, fast.port)) as worker,
    ):
        tasks = []
        while not slow.requests:
            tasks.append(asyncio.create_task(ask(port(worker))))
            await turns(20)
        served = len(fast.requests)
        for _ in range(100):
            assert await ask(port(worker)) == 200
        assert (len(slow.requests), len(fast.requests)) == (1, served + 100)
        gate.set()
        assert set(await asyncio.gather(*tasks)) == {200}
        await assert_clean(worker)


async def test_an_endpoint_that_refuses_is_passed_over_once() -> None:
    (dead,) = free_ports(1)
    async with raw_upstream() as app, running(routes_to(dead, app.port)) as worker:
        for _ in range(40):
            assert await ask(port(worker)) == 200
        assert len(app.requests) == 40
        assert len(app.peers) == 1
        assert worker.assembly.breakers["app", "app"].state.value == "closed"
        await assert_clean(worker)


async def test_a_stale_connection_and_an_endpoint_that_refuses_together_cost_nobody_anything() -> None:
    async def closes_on_reuse(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()

    (dead,) = free_ports(1)
    async with raw_upstream(closes_on_reuse) as app, running(routes_to(dead, app.port)) as worker:
        for _ in range(60):
            assert await ask(port(worker)) == 200
        assert len(app.requests) > 60
        assert set(tried_again(worker)) == {"stale_connection", "connect_failure"}
        await assert_clean(worker)


async def test_a_request_with_a_body_may_be_passed_on_to_the_next_endpoint_too() -> None:
    (dead,) = free_ports(1)
    async with raw_upstream() as app, running(routes_to(dead, app.port)) as worker:
        for number in range(20):
            async with raw_client(port(worker)) as client:
                body = b"%d" % number * 1000
                await client.send(
                    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                )
                (response,) = await client.responses([b"POST"])
            assert response.status == 200
            assert app.requests[-1].body == body
        assert len(app.requests) == 20


@pytest.mark.parametrize(("count", "asked"), [(1, 1), (3, 3), (6, 4)])
async def test_where_endpoints_refuse_three_others_are_asked_each_once(count: int, asked: int) -> None:
    async with running(routes_to(*free_ports(count))) as worker:
        assert await ask(port(worker)) == 502
        pools = worker.assembly.clusters["app"].pools
        assert [pool.in_flight for pool in pools] == [0] * count
        assert scraped(worker, "http_client_request_duration_seconds_count{") == asked


async def test_one_endpoint_of_four_that_listens_answers_all_of_the_first_requests() -> None:
    async with raw_upstream() as app, running(routes_to(*free_ports(3), app.port)) as worker:
        assert {await ask(port(worker)) for _ in range(10)} == {200}
        await assert_clean(worker)


async def test_who_waited_in_line_is_counted_at_the_endpoint_that_serves_it() -> None:
    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            await asyncio.sleep(1)
            served[request.target] = peer.writer.get_extra_info("sockname")[1]
            await peer.send(OK)

    served: dict[bytes, int] = {}
    told: dict[bytes, int] = {}
    async with raw_upstream(script) as one, raw_upstream(script) as two:
        routes = routes_to(one.port, two.port).replace("]}", "], limits: {max_connections: 2}}")
        async with running(routes) as worker:
            asked = [asyncio.create_task(ask(port(worker), b"/%d" % number)) for number in range(20)]
            pools = worker.assembly.clusters["app"].pools
            while not all(task.done() for task in asked):
                await asyncio.sleep(0.5)
                for exchange in worker.service.exchanges:
                    attempt = exchange.attempts[-1]
                    if attempt._lease is not None and attempt.endpoint is not None:
                        told[exchange.request.target] = attempt.endpoint.port
                assert sum(pool.in_flight for pool in pools) == len(worker.service.exchanges)
            assert len(told) == 20
            assert told == served
            await assert_clean(worker)


async def test_weights_share_the_traffic_between_upstreams() -> None:
    async with AsyncExitStack() as stack:
        apps: dict[str, RawUpstream] = {}
        for name in ("main", "canary", "off"):
            apps[name] = await stack.enter_async_context(raw_upstream())
        upstreams = ", ".join(
            f'{name}: {{endpoints: ["127.0.0.1:{app.port}"]}}' for name, app in apps.items()
        )
        routes = f"""\
upstreams: {{{upstreams}}}
routes: [{{name: app, weights: {{main: 90, canary: 10, off: 0}}}}]
"""
        worker = await stack.enter_async_context(running(routes))
        worker.service.rng.seed(1)
        async with raw_client(port(worker)) as client:
            for number in range(500):
                client.received = b""
                await client.send(get(b"/%d" % number))
                await client.responses([b"GET"])
        counts = {name: len(app.requests) for name, app in apps.items()}
        assert sum(counts.values()) == 500
        assert 25 < counts["canary"] < 80
        assert counts["off"] == 0


async def test_each_upstream_of_a_weighted_route_has_a_breaker_of_its_own() -> None:
    async def failing(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")

    async with raw_upstream() as good, raw_upstream(failing) as bad:
        routes = f"""\
upstreams:
  good: {{endpoints: ["127.0.0.1:{good.port}"]}}
  bad: {{endpoints: ["127.0.0.1:{bad.port}"]}}
routes: [{{name: app, weights: {{good: 1, bad: 1}}}}]
"""
        async with running(routes) as worker:
            statuses = Counter([await ask(port(worker)) for _ in range(100)])
            assert statuses[500] == 5
            assert (statuses[200], statuses[200] + statuses[503]) == (len(good.requests), 95)
            assert worker.assembly.breakers["app", "good"].state.value == "closed"
            assert worker.assembly.breakers["app", "bad"].state.value == "open"


async def test_a_unix_socket_is_an_endpoint(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "app.sock"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    routes = f"""\
upstreams: {{app: {{endpoints: ["unix:{path}"]}}}}
routes: [{{name: app, upstream: app}}]
"""
    async with running(routes) as worker:
        assert await ask(port(worker)) == 200
    server.close()
    await server.wait_closed()


# By key


def ring_of(apps: list[RawUpstream], hash_on: str) -> str:
    endpoints = ", ".join(f'"127.0.0.1:{one.port}"' for one in apps)
    return f"""\
upstreams:
  app: {{endpoints: [{endpoints}], load_balancing: {{policy: ring_hash, hash_on: {hash_on}}}}}
routes: [{{name: app, upstream: app, retry: {{attempts: 2, on: [5xx], backoff: {{base: 1ms}}}}}}]
"""


async def served_by(to: int, apps: list[RawUpstream], fields: bytes) -> int:
    """The number of the one that got the request."""
    before = [len(app.requests) for app in apps]
    async with raw_client(to) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")
        await client.responses([b"GET"])
    (changed,) = [n for n, app in enumerate(apps) if len(app.requests) != before[n]]
    return changed


@pytest.mark.parametrize(
    ("hash_on", "field"),
    [
        ("{header: x-user}", b"X-User: u%d\r\n"),
        ("{cookie: session}", b"Cookie: a=b; session=u%d; c=d\r\n"),
    ],
)
async def test_the_same_key_goes_to_the_same_endpoint(hash_on: str, field: bytes) -> None:
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(raw_upstream()) for _ in range(4)]
        worker = await stack.enter_async_context(running(ring_of(apps, hash_on)))
        seen = [await served_by(port(worker), apps, field % (number % 80)) for number in range(240)]
        assert seen[:80] == seen[80:160] == seen[160:]
        assert len(set(seen)) == 4, (
            "by ports that differ each time, one of 4 has none of 80 keys once in 10^8"
        )
        without = {await served_by(port(worker), apps, b"") for _ in range(40)}
        assert len(without) > 1
        await assert_clean(worker)


async def test_a_client_keeps_its_endpoint_whatever_it_asks_for() -> None:
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(raw_upstream()) for _ in range(4)]
        worker = await stack.enter_async_context(running(ring_of(apps, "{client: true}")))
        assert (
            len({await served_by(port(worker), apps, b"X-A: %d\r\n" % number) for number in range(20)}) == 1
        )


async def test_tries_of_one_key_go_to_one_endpoint_after_the_other() -> None:
    async def fails(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.send(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")

    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(raw_upstream(fails)) for _ in range(3)]
        worker = await stack.enter_async_context(running(ring_of(apps, "{header: x-user}")))
        async with raw_client(port(worker)) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-User: a\r\n\r\n")
            (response,) = await client.responses([b"GET"])
        assert response.status == 500
        assert [len(app.requests) for app in apps] == [1, 1, 1]


async def test_a_reload_changes_weights_and_policy_and_keeps_connections() -> None:
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(raw_upstream()) for _ in range(2)]

        def routes(weight: int, balancing: str) -> str:
            return f"""\
upstreams:
  app:
    endpoints:
    - {{address: "127.0.0.1:{apps[0].port}", weight: {weight}}}
    - "127.0.0.1:{apps[1].port}"
    load_balancing: {balancing}
routes: [{{name: app, upstream: app}}]
"""

        worker = await stack.enter_async_context(running(routes(1, "{}")))
        assert {await served_by(port(worker), apps, b"") for _ in range(30)} == {0, 1}
        before = list(worker.assembly.clusters["app"].pools)
        for weight, balancing, seen in (
            (0, "{}", {1}),
            (9, "{}", {0, 1}),
            (0, "{policy: ring_hash, hash_on: {header: x-user}}", {1}),
            (1, "{policy: ring_hash, hash_on: {header: x-user}}", {0, 1}),
        ):
            await worker.datapath.install(load_text(HEADER + routes(weight, balancing)).snapshot)
            fields = [b"X-User: %d\r\n" % number for number in range(40)]
            assert {await served_by(port(worker), apps, field) for field in fields} == seen
            assert worker.assembly.clusters["app"].pools == before
        await assert_clean(worker)


async def test_endpoints_of_our_own_zone_go_first() -> None:
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(raw_upstream()) for _ in range(4)]
        endpoints = ", ".join(
            f'{{address: "127.0.0.1:{app.port}", zone: {"ab"[n % 2]}}}' for n, app in enumerate(apps)
        )
        for zone, preference, seen in (
            ("a", "prefer", {0, 2}),
            ("", "prefer", {0, 1, 2, 3}),
            ("a", "any", {0, 1, 2, 3}),
        ):
            routes = f"""\
upstreams: {{app: {{endpoints: [{endpoints}], load_balancing: {{zone: {preference}}}}}}}
routes: [{{name: app, upstream: app}}]
"""
            async with running(routes, environ={"SIDECAR_ZONE": zone}) as worker:
                assert {await served_by(port(worker), apps, b"") for _ in range(60)} == seen
