"""Against real parts: two sidecar processes in a row, a collector (rotel) before a receiver (oteltap), Prometheus.

    client → sidecar "orders": inbound → app → outbound → sidecar "payments": inbound → service

The app forwards `traceparent` and nothing else. "orders" exports over grpc, "payments" over http/protobuf; their
own traces are never sampled, so every exchange seen was asked for by its client.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
import pytest_asyncio
from aiohttp import web

from sidecar.core.numbers import BUDGET_BOUNDS
from sidecar.core.snapshot import DURATION_BOUNDS
from tests.support.ports import free_ports
from tests.support.process import Running, sidecar
from tests.support.prometheus import needs_prometheus, prometheus
from tests.support.upstream import Peer, scripted
from tests.support.web_app import web_app
from tests.telemetry.conftest import Collector, inflating_relay

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

SERVER, CLIENT, INTERNAL, UNSET, ERROR = 2, 3, 1, 0, 2
WAIT_SECONDS = 120.0
"""Against hanging, not for speed."""
TRANSITION = "circuit_breaker.transition"
QUEUE = 256
_numbers = itertools.count(1)


@dataclass
class Stage:
    """Everything that runs, and the spans that came out of it."""

    orders: Running
    payments: Running
    orders_port: int
    payments_port: int
    collector: Collector
    tap: Any
    session: aiohttp.ClientSession
    failing: set[str]
    """First segments of the paths that the service answers with 503."""
    parents: list[str]
    """Each `traceparent` that the service saw."""
    spans: list[Any] = field(default_factory=list)

    async def get(self, port: int, path: str, trace: Trace, **headers: str) -> int:
        fields = {
            "traceparent": trace.parent,
            **{name.replace("_", "-"): text for name, text in headers.items()},
        }
        async with self.session.get(f"http://127.0.0.1:{port}{path}", headers=fields) as answer:
            await answer.read()
            return answer.status

    async def call(self, path: str, trace: Trace) -> int:
        """Ask "payments" directly."""
        return await self.get(self.payments_port, path, trace)

    async def seen(self, is_wanted: Callable[[Any], bool], count: int = 1) -> list[Any]:
        """Wait for so many such spans."""
        found: list[Any] = []

        def is_there() -> bool:
            found[:] = [span for span in self.spans if is_wanted(span)]
            return len(found) >= count

        await until(is_there)
        return found


@dataclass(frozen=True)
class Trace:
    """A trace that a client started."""

    id: str
    is_sampled: bool = True

    @classmethod
    def new(cls, *, is_sampled: bool = True) -> Trace:
        return cls(f"{next(_numbers):032x}", is_sampled)

    @property
    def parent(self) -> str:
        return f"00-{self.id}-00000000000000c1-0{int(self.is_sampled)}"

    def has(self, span: Any) -> bool:
        return bool(span.trace_id.hex() == self.id)


async def until(is_so: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


def attributes(item: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in item.attributes}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    for part in ("oteltap", "rotel"):
        pytest.importorskip(part, reason=f"`{part}` (PyPI) is not installed")
    folder = tmp_path_factory.mktemp("telemetry")
    async with AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in [name for name in os.environ if name.startswith("OTEL_")]:
            patch.delenv(name)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        patch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(QUEUE))
        patch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "128")
        patch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
        yield await _built(stack, folder)


async def _built(stack: AsyncExitStack, folder: Path) -> Stage:
    import oteltap

    tap_port, inbound, outbound, payments, *others = free_ports(8)
    settings = oteltap.OtelTapHttpProtobufReceiverSettings(http_port=tap_port, listen_on_all_interfaces=False)
    tap = await stack.enter_async_context(oteltap.OtelTapHttpProtobufReceiver(settings))
    collector = Collector(await stack.enter_async_context(inflating_relay(tap_port)))
    await asyncio.to_thread(collector.start)
    stack.callback(collector.kill)
    failing: set[str] = set()
    parents: list[str] = []
    service = await stack.enter_async_context(scripted(_service(failing, parents)))
    twin = await stack.enter_async_context(scripted(_service(failing, parents)))
    grpc_port = await stack.enter_async_context(_grpc_service())
    session = await stack.enter_async_context(aiohttp.ClientSession())
    app = await stack.enter_async_context(_app(session, outbound))
    (folder / "orders.yaml").write_text(_orders(collector, inbound, outbound, others[:2], app, payments))
    (folder / "payments.yaml").write_text(
        _payments(collector, payments, others[2:], service.port, twin.port, grpc_port)
    )
    running = [
        await stack.enter_async_context(
            sidecar(folder / f"{name}.yaml", probes, folder / f"{name}.log", ("-m", "sidecar", "run"))
        )
        for name, probes in (("orders", others[0]), ("payments", others[2]))
    ]
    one = Stage(running[0], running[1], inbound, payments, collector, tap, session, failing, parents)
    reading = asyncio.create_task(_read(one))
    stack.push_async_callback(_cancelled, reading)
    return one


async def _read(stage: Stage) -> None:
    async for span in stage.tap.stream_traces():
        stage.spans.append(span)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _service(failing: set[str], parents: list[str]) -> Callable[[Peer], Any]:
    async def serve(peer: Peer) -> None:
        while True:
            head = await peer.head()
            path = head.split(b" ", 2)[1].decode()
            came = re.findall(r"(?im)^traceparent: *(\S+)", head.decode())
            is_first = not any(one.split("-")[1] == came[0].split("-")[1] for one in parents)
            parents.extend(came)
            first = path.split("/")[1]
            if first in ("slow", "left") or (first == "hedged" and is_first):
                await peer.closed()
                return
            is_bad = first in failing or (first == "again" and is_first)
            status = b"503 Busy" if is_bad else b"200 OK"
            await peer.send(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nok" % status)

    return serve


@asynccontextmanager
async def _grpc_service() -> AsyncIterator[int]:
    """Says of each call that it is out of stock."""

    async def charge(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.INTERNAL, "out of stock")
        return request

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(charge)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Pay", {"Charge": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def _app(session: aiohttp.ClientSession, outbound: int) -> AsyncIterator[int]:
    async def handle(request: web.Request) -> web.Response:
        headers = {"Host": "payments", "traceparent": request.headers["traceparent"]}
        path = request.path if request.path == "/left" else "/v1/pay?sig=secret"
        async with session.get(f"http://127.0.0.1:{outbound}{path}", headers=headers) as answer:
            return web.Response(status=answer.status, body=await answer.read())

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    async with web_app(app) as port:
        yield port


def _telemetry(collector: Collector, service: str, protocol: str) -> str:
    port = collector.grpc_port if protocol == "grpc" else collector.http_port
    return (
        f'telemetry: {{service_name: {service}, otlp: {{endpoint: "http://127.0.0.1:{port}", protocol: {protocol}}},'
        ' traces: {sample_ratio: 0}, metrics: {interval: 1s}, access_log: {format: "off"}}'
    )


def _orders(
    collector: Collector, inbound: int, outbound: int, own: list[int], app: int, payments: int
) -> str:
    return f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}, outbound: {{address: "127.0.0.1:{outbound}"}}}}
probes: {{address: "127.0.0.1:{own[0]}"}}
admin: {{address: "127.0.0.1:{own[1]}"}}
drain: {{delay: 0s}}
{_telemetry(collector, "orders", "grpc")}
upstreams: {{app: {{endpoints: ["127.0.0.1:{app}"]}}, payments: {{endpoints: ["127.0.0.1:{payments}"]}}}}
routes:
- {{name: orders, listener: inbound, upstream: app}}
- {{name: to-payments, listener: outbound, match: {{hosts: [payments]}}, upstream: payments}}
"""


def _payments(
    collector: Collector, inbound: int, own: list[int], service: int, twin: int, grpc_port: int
) -> str:
    breaker = "circuit_breaker: {consecutive_failures: 3, open_for: 300ms}"
    return f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{own[0]}"}}
admin: {{address: "127.0.0.1:{own[1]}"}}
drain: {{delay: 0s}}
{_telemetry(collector, "payments", "http/protobuf")}
upstreams:
  service: {{endpoints: ["127.0.0.1:{service}"]}}
  two: {{endpoints: ["127.0.0.1:{service}", "127.0.0.1:{twin}"]}}
  grpc: {{endpoints: ["127.0.0.1:{grpc_port}"], protocol: http2}}
routes:
- {{name: payments, upstream: service}}
- {{name: flaky, match: {{path: {{prefix: /flaky}}}}, upstream: service, {breaker}}}
- {{name: dark, match: {{path: {{prefix: /dark}}}}, upstream: service, {breaker}}}
- {{name: counted, match: {{path: {{prefix: /counted}}}}, upstream: service}}
- {{name: born, match: {{path: {{prefix: /born}}}}, upstream: service, {breaker}}}
- {{name: slow, match: {{path: {{prefix: /slow}}}}, upstream: service, timeouts: {{request: 300ms}}}}
- {{name: again, match: {{path: {{prefix: /again}}}}, upstream: service, retry: {{attempts: 2, on: [5xx]}}}}
- {{name: hedged, match: {{path: {{prefix: /hedged}}}}, upstream: two, hedge: {{after: 50ms}}}}
- {{name: charge, match: {{grpc: {{service: shop.Pay}}}}, upstream: grpc}}
- {{name: loaded, match: {{path: {{prefix: /loaded}}}}, upstream: service}}
"""


CLOCKS_NS = 1_000_000
"""How far the wall times of two processes on one machine may lie apart."""


# One trace


async def test_one_trace_leads_through_both_sidecars_with_the_right_parents_and_kinds(stage: Stage) -> None:
    trace = Trace.new()
    assert await stage.get(stage.orders_port, "/v1/buy?id=7", trace, x_request_timeout_ms="2000") == 200
    spans = sorted(await stage.seen(trace.has, 4), key=lambda span: span.start_time_unix_nano)
    assert [(span.name, span.kind, span.status.code) for span in spans] == [
        ("GET orders", SERVER, UNSET),
        ("GET to-payments", SERVER, UNSET),
        ("GET payments", CLIENT, UNSET),
        ("GET payments", SERVER, UNSET),
    ]
    assert stage.parents[-1] == f"00-{trace.id}-{spans[-1].span_id.hex()}-01", "what the service saw"
    assert [span.parent_span_id.hex() for span in spans] == [
        "00000000000000c1",
        *(span.span_id.hex() for span in spans[:-1]),
    ]
    for outer, inner in itertools.pairwise(spans):
        # Two processes: each turns its monotonic clock into wall time by an offset of its own. Which of two ends is
        # seen first is not told by the answer: who wrote it may wait for its turn before it looks at its clock.
        assert outer.start_time_unix_nano <= inner.start_time_unix_nano + CLOCKS_NS
        assert inner.start_time_unix_nano <= outer.end_time_unix_nano + CLOCKS_NS
    told = [attributes(span) for span in spans]
    assert [one.get("sidecar.deadline.source") for one in told] == ["header", "trace", None, "header"]
    of_orders, of_call, sent, of_payments = (
        one.get("sidecar.deadline.budget_ms", one.get("sidecar.deadline.sent_ms")) for one in told
    )
    assert of_orders == 1995
    assert of_orders > of_call >= sent > of_payments > 1500
    assert of_payments >= told[-1]["sidecar.deadline.sent_ms"] > 1500


async def test_attributes_are_those_of_the_conventions_and_no_more(stage: Stage) -> None:
    trace = Trace.new()
    await stage.get(stage.orders_port, "/v1/buy?id=7", trace, x_request_id="r-1", user_agent="test")
    spans = sorted(await stage.seen(trace.has, 4), key=lambda span: span.start_time_unix_nano)
    varying = (
        "network.peer.port",
        "sidecar.deadline.used_ms",
        "sidecar.deadline.budget_ms",
        "sidecar.deadline.sent_ms",
        "sidecar.request_id",
    )
    server = attributes(spans[0])
    assert server.pop("server.port") != stage.orders_port, "that of the app"
    assert 0.0 < server.pop("sidecar.upstream.duration") < WAIT_SECONDS
    assert {name: type(server.pop(name)) for name in varying} == dict.fromkeys(varying[:4], int) | {
        varying[4]: str
    }
    assert server == {
        "client.address": "127.0.0.1",
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "network.peer.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "server.address": "127.0.0.1",
        "sidecar.circuit_breaker.state": "closed",
        "sidecar.deadline.source": "route",
        "sidecar.listener": "inbound",
        "sidecar.route": "orders",
        "sidecar.upstream": "app",
        "url.path": "/v1/buy",
        "url.query": "id=7",
        "url.scheme": "http",
        "user_agent.original": "test",
    }
    client = attributes(spans[2])
    assert isinstance(client.pop("sidecar.deadline.sent_ms"), int)
    assert client == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "network.peer.address": "127.0.0.1",
        "network.peer.port": stage.payments_port,
        "network.protocol.version": "1.1",
        "server.address": "127.0.0.1",
        "server.port": stage.payments_port,
        "sidecar.route": "to-payments",
        "sidecar.upstream": "payments",
        "url.full": f"http://127.0.0.1:{stage.payments_port}/v1/pay?sig=REDACTED",
        "url.scheme": "http",
    }


# Who is to blame


async def test_a_timeout_is_red_where_the_time_went(stage: Stage) -> None:
    trace = Trace.new()
    assert await stage.call("/slow", trace) == 504
    (server,) = await stage.seen(trace.has)
    assert (server.name, server.kind, server.status.code) == ("GET slow", SERVER, ERROR)
    told = attributes(server)
    assert (told["error.type"], told["sidecar.upstream"]) == ("timeout", "service")
    assert 0.25 < told["sidecar.upstream.duration"] < WAIT_SECONDS
    assert "sidecar.cancellation.cause" not in told


async def test_a_client_that_left_leaves_no_red_span_on_the_whole_way(stage: Stage) -> None:
    trace, before = Trace.new(), len(stage.parents)
    asking = asyncio.create_task(stage.get(stage.orders_port, "/left", trace))
    await until(lambda: any(trace.id in one for one in stage.parents[before:]))
    await _cancelled(asking)
    spans = sorted(await stage.seen(trace.has, 4), key=lambda span: span.start_time_unix_nano)
    told = [attributes(span) for span in spans]
    assert [
        (span.name, span.kind, span.status.code, one["error.type"], one["sidecar.cancellation.cause"])
        for span, one in zip(spans, told, strict=True)
    ] == [
        ("GET orders", SERVER, UNSET, "client_gone", "client"),
        ("GET to-payments", SERVER, UNSET, "caller_gone", "caller"),
        ("GET payments", CLIENT, UNSET, "caller_gone", "caller"),
        ("GET payments", SERVER, UNSET, "client_gone", "client"),
    ]


async def test_a_retry_shows_each_attempt_and_the_one_that_failed_is_red(stage: Stage) -> None:
    trace = Trace.new()
    assert await stage.call("/again", trace) == 200
    server, first, second = sorted(
        await stage.seen(trace.has, 3), key=lambda span: (span.kind, span.start_time_unix_nano)
    )
    assert [(span.name, span.kind, span.status.code) for span in (server, first, second)] == [
        ("GET again", SERVER, UNSET),
        ("GET service", CLIENT, ERROR),
        ("GET service", CLIENT, UNSET),
    ]
    assert {first.parent_span_id, second.parent_span_id} == {server.span_id}
    assert attributes(first)["error.type"] == "503"
    assert attributes(second)["http.request.resend_count"] == 1
    assert [one.split("-")[2] for one in stage.parents[-2:]] == [first.span_id.hex(), second.span_id.hex()]


async def test_a_hedge_shows_both_attempts_and_the_one_that_was_overtaken_is_not_red(stage: Stage) -> None:
    trace = Trace.new()
    assert await stage.call("/hedged", trace) == 200
    server, slow, hedge = sorted(
        await stage.seen(trace.has, 3), key=lambda span: (span.kind, span.start_time_unix_nano)
    )
    assert [(span.name, span.kind, span.status.code) for span in (server, slow, hedge)] == [
        ("GET hedged", SERVER, UNSET),
        ("GET two", CLIENT, UNSET),
        ("GET two", CLIENT, UNSET),
    ]
    assert {slow.parent_span_id, hedge.parent_span_id} == {server.span_id}
    told = attributes(slow), attributes(hedge)
    assert told[0]["sidecar.cancellation.cause"] == "hedge"
    assert told[1]["sidecar.attempt.kind"] == "hedge"
    assert {"error.type", "http.response.status_code"}.isdisjoint(told[0])
    assert told[1]["http.response.status_code"] == 200
    assert told[0]["server.port"] != told[1]["server.port"]
    assert hedge.start_time_unix_nano - slow.start_time_unix_nano > 40_000_000
    assert slow.end_time_unix_nano <= server.end_time_unix_nano + CLOCKS_NS
    assert attributes(server)["http.route"] == "/hedged"


async def test_a_grpc_call_that_failed_has_its_status_and_is_red_though_http_said_200(stage: Stage) -> None:
    trace = Trace.new()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stage.payments_port}") as channel:
        call = channel.unary_unary("/shop.Pay/Charge")(b"", metadata=(("traceparent", trace.parent),))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    (server,) = await stage.seen(trace.has)
    assert (server.name, server.kind, server.status.code) == ("POST charge", SERVER, ERROR)
    told = attributes(server)
    names = (
        "http.response.status_code",
        "rpc.grpc.status_code",
        "error.type",
        "http.route",
        "sidecar.upstream",
    )
    assert [told[name] for name in names] == [200, 13, "INTERNAL", "/shop.Pay", "grpc"]
    assert (told["rpc.system"], told["rpc.service"], told["rpc.method"]) == ("grpc", "shop.Pay", "Charge")
    assert [event.name for event in server.events] == ["connection.waited"], "one was opened for it"
    assert not server.links


# Breakers


async def test_outage_is_a_trace_that_links_to_its_causes_and_is_linked_from_what_it_refused(
    stage: Stage,
) -> None:
    stage.failing.add("flaky")
    causes = [Trace.new(is_sampled=number > 0) for number in range(3)]
    assert [await stage.call("/flaky", cause) for cause in causes] == [503] * 3
    refused = [Trace.new()]
    assert await stage.call("/flaky", refused[0]) == 503
    (root,) = await stage.seen(lambda span: span.name == "circuit_breaker.opened flaky")
    tried = await _until(stage, "/flaky", "circuit_breaker.probe")
    stage.failing.discard("flaky")
    refused.append(Trace.new())
    assert await stage.call("/flaky", refused[1]) == 503, "it waits 600 ms now"
    await _until(stage, "/flaky", "circuit_breaker.outage flaky", is_sampled=False)

    (whole,) = await stage.seen(lambda span: span.name == "circuit_breaker.outage flaky")
    steps = sorted(
        await stage.seen(lambda span: span.parent_span_id == root.span_id, 5),
        key=lambda span: (span.start_time_unix_nano, span.end_time_unix_nano),
    )
    assert [(span.name, span.kind, span.status.code) for span in (root, *steps)] == [
        ("circuit_breaker.opened flaky", INTERNAL, ERROR),
        ("circuit_breaker.wait", INTERNAL, ERROR),
        ("circuit_breaker.outage flaky", INTERNAL, ERROR),
        ("circuit_breaker.probe", INTERNAL, ERROR),
        ("circuit_breaker.wait", INTERNAL, ERROR),
        ("circuit_breaker.probe", INTERNAL, ERROR),
    ]
    assert {span.trace_id for span in (root, *steps)} == {root.trace_id}
    told = [attributes(span) for span in steps]
    assert {one["sidecar.outage.id"] for one in told} == {root.trace_id.hex()}
    assert (told[2]["http.response.status_code"], told[4]["http.response.status_code"]) == (503, 200)
    assert [link.trace_id.hex() in {one.id for one in tried} for link in steps[2].links] == [True]
    assert (told[1]["sidecar.outage.probed"], told[1]["sidecar.outage.ended"]) == (2, True)
    assert told[1]["sidecar.outage.refused"] >= 2
    assert whole.end_time_unix_nano - whole.start_time_unix_nano >= 0.2e9

    assert [link.trace_id.hex() for link in root.links] == [cause.id for cause in causes]
    assert [link.flags & 1 for link in root.links] == [0, 1, 1]
    assert [event.name for event in root.events] == ["circuit_breaker.cause"] * 3
    assert root.start_time_unix_nano == root.events[0].time_unix_nano < root.end_time_unix_nano
    servers = [
        (await stage.seen(lambda span, one=one: one.has(span) and span.kind == SERVER))[0]
        for one in (*causes[1:], *refused)
    ]
    assert [[event.name for event in span.events] for span in servers] == [[], [TRANSITION], [], []]
    assert [attributes(span)["error.type"] for span in servers] == ["503", "503", *["circuit_open"] * 2]
    for span in servers[1:]:
        assert [(link.trace_id, link.span_id) for link in span.links] == [(root.trace_id, root.span_id)]


async def _until(stage: Stage, path: str, name: str, *, is_sampled: bool = True) -> list[Trace]:
    """Ask until such a span has come; the traces of what was asked."""
    asked: list[Trace] = []
    deadline = time.monotonic() + WAIT_SECONDS
    while not any(span.name == name and _route(span) == path[1:] for span in stage.spans):
        assert time.monotonic() < deadline, "it did not happen in time"
        asked.append(Trace.new(is_sampled=is_sampled))
        await stage.call(path, asked[-1])
        await asyncio.sleep(0.05)
    return asked


async def test_transitions_are_exported_though_nothing_of_their_cause_is_sampled(stage: Stage) -> None:
    stage.failing.add("dark")
    causes = [Trace.new(is_sampled=False) for _ in range(3)]
    assert [await stage.call("/dark", cause) for cause in causes] == [503] * 3
    (opened,) = await stage.seen(lambda span: span.name == "circuit_breaker.opened dark")
    assert [link.trace_id.hex() for link in opened.links] == [cause.id for cause in causes]
    assert [span.name for span in stage.spans if any(cause.has(span) for cause in causes)] == []


async def test_each_reload_is_a_trace_of_its_own_and_a_bad_one_says_where_and_what(stage: Stage) -> None:
    file = stage.orders.log.with_suffix(".yaml")
    good = file.read_text()
    changed = good.replace("upstream: payments}", "upstream: payments, timeouts: {request: 9s}}")
    told = []
    for text in (changed, changed + "oops: 1\n", good):
        file.write_text(text)
        told.append((await stage.seen(lambda span: span.name == "config.reload", len(told) + 1))[-1])
    assert [(span.kind, span.parent_span_id, list(span.links), list(span.events)) for span in told] == [
        (INTERNAL, b"", [], [])
    ] * 3
    assert [span.status.code for span in told] == [UNSET, ERROR, UNSET]
    assert told[1].status.message.startswith(f"{file}:{good.count(chr(10)) + 1}:1: unknown key 'oops'")
    names = ("result", "generation", "routes.added", "routes.removed", "routes.changed", "breakers.kept")
    assert [[attributes(span)[f"sidecar.config.{name}"] for name in names] for span in told] == [
        ["success", 2, 0, 0, 1, 2],
        ["failure", 2, 0, 0, 0, 0],
        ["success", 3, 0, 0, 1, 2],
    ]


def _route(span: Any) -> Any:
    return attributes(span).get("sidecar.route")


# Numbers


async def test_metrics_come_out_with_the_conventions_units_and_buckets(stage: Stage) -> None:
    await stage.get(stage.orders_port, "/", Trace.new())
    shapes: dict[str, tuple[str, str, Mapping[str, Any], tuple[float, ...]]] = {}
    expected = {
        "http.server.request.duration": ("s", "histogram"),
        "http.client.request.duration": ("s", "histogram"),
        "http.server.active_requests": ("{request}", "sum"),
        "sidecar.circuit_breaker.state": ("{breaker}", "sum"),
        "sidecar.deadline.budget": ("s", "histogram"),
        "sidecar.upstream.connections": ("{connection}", "sum"),
        "sidecar.upstream.wait": ("s", "histogram"),
        "sidecar.config.generation": ("{generation}", "gauge"),
        "sidecar.telemetry.dropped": ("{item}", "sum"),
    }

    def keep(metric: Any) -> bool:
        data = getattr(metric, kind := metric.WhichOneof("data"))
        point = data.data_points[0]
        bounds = tuple(point.explicit_bounds) if kind == "histogram" else ()
        shapes.setdefault(metric.name, (metric.unit, kind, attributes(point), bounds))
        return expected.keys() <= shapes.keys()

    await stage.tap.await_metric(keep, timeout=WAIT_SECONDS)
    assert {name: shapes[name][:2] for name in expected} == expected
    assert shapes["http.server.request.duration"][3] == DURATION_BOUNDS
    assert shapes["http.client.request.duration"][3] == DURATION_BOUNDS
    assert shapes["sidecar.deadline.budget"][3] == BUDGET_BOUNDS
    assert {"http.request.method", "url.scheme", "sidecar.route"} <= shapes["http.server.request.duration"][
        2
    ].keys()


@needs_prometheus
async def test_prometheus_scrapes_what_was_sent_and_promtool_finds_no_fault(
    stage: Stage, tmp_path: Path
) -> None:
    stage.failing.add("counted")
    for _ in range(4):
        assert await stage.call("/counted", Trace.new()) == 503
    stage.failing.discard("counted")
    for _ in range(7):
        assert await stage.call("/counted", Trace.new(is_sampled=False)) == 200
    name, where = "http_server_request_duration_seconds", 'sidecar_route="counted"'
    async with prometheus(tmp_path, [stage.orders.probes, stage.payments.probes]) as asking:

        async def tells(query: str, expected: dict[str, str]) -> None:
            await asking.until(
                query, lambda rows: {"".join(one.values()): value for one, value in rows} == expected
            )

        await tells("sum (up)", {"": "2"})
        openings = 'sidecar_circuit_breaker_transitions_total{sidecar_route="born"}'
        await tells(f"count_over_time (sum ({openings})[1m:250ms]) > bool 3", {"": "1"})
        stage.failing.add("born")
        assert [await stage.call("/born", Trace.new(is_sampled=False)) for _ in range(3)] == [503] * 3
        stage.failing.discard("born")
        await tells(f"sum (increase ({openings}[1m])) > bool 0", {"": "1"})
        by_status = {"200": "7", "503": "4"}
        await tells(f"sum by (http_response_status_code) ({name}_count{{{where}}})", by_status)
        await tells(f'sum ({name}_bucket{{{where},le="+Inf"}})', {"": "11"})
        await tells(f"sum (http_client_request_duration_seconds_count{{{where}}})", {"": "11"})
        await tells(f"sum (sidecar_circuit_breaker_calls_total{{{where}}})", {"": "11"})
    for one in (stage.orders, stage.payments):
        _, text = await one.get("/metrics")
        checked = await asyncio.create_subprocess_exec(
            "promtool", "check", "metrics", stdin=-1, stdout=-1, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await checked.communicate(text.encode())
        assert (checked.returncode, output.decode()) == (0, "")


# An outage of the collector


async def test_killed_collector_fails_no_request_and_telemetry_resumes_with_an_honest_count(
    stage: Stage,
) -> None:
    """What is sampled stops for the moment of the kill alone, so that the collector takes none to its grave that it
    had accepted: then every span is either received or counted."""
    load = Load(stage)
    working = [asyncio.create_task(load.work()) for _ in range(8)]
    try:
        await until(lambda: load.sampled >= 200)
        load.is_sampled = False
        await until(lambda: load.received() == load.sampled)
        before = stage.payments.memory_kib()
        await asyncio.to_thread(stage.collector.kill)
        load.is_sampled = True
        await until(lambda: load.sampled >= 200 + 3 * QUEUE)
        while not (await dropped(stage.payments))["queue_full"]:  # noqa: ASYNC110  (it stands in a page)
            await asyncio.sleep(0.05)
        assert stage.payments.memory_kib() - before < 32 * 1024
        at_return = load.received()
        await asyncio.to_thread(stage.collector.start)
        await until(lambda: load.received() > at_return + 500)
        assert stage.payments.memory_kib() - before < 32 * 1024
    finally:
        load.is_over = True
        await asyncio.gather(*working)
    assert set(load.statuses) == {200}
    expected = load.sampled
    deadline = time.monotonic() + WAIT_SECONDS
    while (told := load.received() + sum((await dropped(stage.payments)).values())) < expected:
        assert time.monotonic() < deadline, f"{told} of {expected} spans are accounted for"
        await asyncio.sleep(0.1)
    assert told == expected


class Load:
    """Clients that send as fast as they can; `sampled` counts the exchanges that ask for a trace."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.is_over = False
        self.is_sampled = True
        self.sampled = 0
        self.statuses: dict[int, int] = {}

    async def work(self) -> None:
        while not self.is_over:
            is_sampled = self.is_sampled
            self.sampled += is_sampled
            status = await self._stage.call("/loaded", Trace.new(is_sampled=is_sampled))
            self.statuses[status] = self.statuses.get(status, 0) + 1

    def received(self) -> int:
        """Exchanges whose SERVER span has arrived."""
        return len({span.span_id for span in self._stage.spans if span.name == "GET loaded"})


async def dropped(running: Running) -> dict[str, int]:
    """Spans lost so far, by reason."""
    _, text = await running.get("/metrics")
    lost = {}
    for line in text.splitlines():
        if line.startswith("sidecar_telemetry_dropped_total") and 'signal="traces"' in line:
            lost[line.partition('reason="')[2].partition('"')[0]] = int(line.rpartition(" ")[2])
    return lost
