"""Every row of the table of answers, to the byte: `tests/golden/answers/*.http`.

`UPDATE_GOLDEN=1 pytest tests/scenarios/test_answers.py` writes them anew; read the difference before it is kept.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from sidecar.core.errors import Reason
from sidecar.downstream.phase import LAST_CALL_SECONDS
from sidecar.forwarding.live import MOST_TURNS, PSEUDONYM
from sidecar.runtime.worker import Worker
from sidecar.transport.tls.files import server_context
from sidecar.upstream.lookup import Answer
from tests.scenarios.stage import OK, app_routes, get, hang, inbound, post, saying, stage
from tests.support.authority import Authority
from tests.support.certificates import Certificates
from tests.support.clean import assert_clean
from tests.support.ports import free_ports
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawPeer, raw_client, read_responses, turns
from tests.support.tls_client import tls_client

GOLDEN = Path(__file__).parent.parent / "golden" / "answers"
ID = b"x-request-id: golden"
ASK = get(b"/", ID)
FAILING = saying(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")


async def answer_to(data: bytes, to: int) -> bytes:
    """All that a connection of its own is sent for `data`; it asks for a close behind it."""
    async with raw_client(to) as client:
        await client.send(data)
        method = data.split(b" ", 1)[0]
        await client.responses([method])
        return client.received


async def circuit_open() -> bytes:
    async with stage(FAILING) as to:
        for _ in range(5):
            await to.ask()
        await asyncio.sleep(2.5)
        return await answer_to(ASK, to.port)


async def circuit_open_grpc() -> bytes:
    async with stage(FAILING) as to:
        for _ in range(5):
            await to.ask()
        return await answer_to(get(b"/", ID, b"content-type: application/grpc"), to.port)


async def circuit_open_head() -> bytes:
    async with stage(FAILING) as to:
        for _ in range(5):
            await to.ask()
        return await answer_to(ASK.replace(b"GET", b"HEAD"), to.port)


async def circuit_open_ramping() -> bytes:
    failures = [b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"] * 5
    async with stage(saying(*failures, OK), route="circuit_breaker: {ramp: 10s}") as to:
        await to.ask_all(get() * 5, [b"GET"] * 5)
        await asyncio.sleep(5.01)
        await to.ask()
        await asyncio.sleep(3.0)
        received = b"HTTP/1.1 200"
        while received.startswith(b"HTTP/1.1 200"):  # a share of 37 % is let in, by chance
            received = await answer_to(ASK, to.port)
        return received


async def fallback() -> bytes:
    policy = """fallback: {status: 203, headers: {content-type: application/json}, body: '{"items": []}'}"""
    async with stage(FAILING, route=policy) as to:
        for _ in range(5):
            await to.ask()
        return await answer_to(ASK, to.port)


async def overloaded() -> bytes:
    async with stage(hang, upstream="limits: {max_requests: 1}") as to, raw_client(to.port) as first:
        await first.send(get())
        while not to.app.received:
            await turns()
        return await answer_to(ASK, to.port)


async def overloaded_connections() -> bytes:
    limits = "limits: {max_connections: 1, max_pending: 1}"
    async with (
        stage(hang, upstream=limits) as to,
        raw_client(to.port) as first,
        raw_client(to.port) as second,
    ):
        await first.send(get())
        await second.send(get())
        while to.cluster.pending < 1:
            await turns()
        return await answer_to(ASK, to.port)


async def deadline_spent_on_arrival() -> bytes:
    async with stage(hang) as to:
        return await answer_to(get(b"/", ID, b"x-request-timeout-ms: 0"), to.port)


async def deadline_too_small_to_send() -> bytes:
    async with stage(hang) as to:
        received = await answer_to(get(b"/", ID, b"x-request-timeout-ms: 1"), to.port)
        assert to.app.received == b""
        assert to.numbers.rejected == {"spent": 0, "too_small": 0, "not_sent": 1}
        return received


async def timeout() -> bytes:
    async with stage(hang, route="timeouts: {request: 2s}") as to:
        return await answer_to(ASK, to.port)


async def attempt_timeout() -> bytes:
    async with stage(hang, route="timeouts: {request: 2s, attempt: 800ms}") as to:
        return await answer_to(ASK, to.port)


async def timeout_grpc() -> bytes:
    async with stage(hang, route="timeouts: {request: 2s}") as to:
        return await answer_to(get(b"/", ID, b"content-type: application/grpc+proto"), to.port)


async def timeout_after_the_head() -> bytes:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await peer.read_some()

    async with stage(script, route="timeouts: {request: 2s}") as to, raw_client(to.port) as client:
        await client.send(ASK)
        await client.read_to_end()
        return client.received


@asynccontextmanager
async def in_front_of(to: int, upstream: str = "") -> AsyncIterator[int]:
    async with running(app_routes(to, upstream=upstream)) as worker:
        yield port(worker)
        await assert_clean(worker)


async def connect_timeout() -> bytes:
    """A listener whose queue is full: the kernel lets further connections wait for ever."""
    with socket.socket() as full, socket.socket() as one, socket.socket() as two:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        async with in_front_of(full.getsockname()[1], "timeouts: {connect: 1s}") as to:
            return await answer_to(ASK, to)


async def connection_refused() -> bytes:
    (dead,) = free_ports(1)
    async with in_front_of(dead) as to:
        return await answer_to(ASK, to)


async def dns_error() -> bytes:
    routes = app_routes(80).replace("127.0.0.1:80", "nowhere.invalid:80")
    async with running(routes) as worker:
        return await answer_to(ASK, port(worker))


async def tls_certificate() -> bytes:
    with TemporaryDirectory() as folder:
        pair = Certificates(Path(folder)).self_signed("a", "a.test")
        context = server_context()
        context.load_cert_chain(pair.chain, pair.key)
        async with stage(upstream="tls: {server_name: a.test}", tls=context) as to:
            return await answer_to(ASK, to.port)


async def tls_protocol() -> bytes:
    async def script(peer: RawPeer) -> None:
        await peer.read_some()
        await peer.send(OK)

    async with stage(script, upstream="tls: {server_name: a.test}") as to:
        return await answer_to(ASK, to.port)


async def tls_alert() -> bytes:
    async def script(peer: RawPeer) -> None:
        await peer.read_some()
        await peer.send(b"\x15\x03\x03\x00\x02\x02\x70")  # fatal, unrecognized_name (RFC 8446 6)

    async with stage(script, upstream="tls: {server_name: a.test}") as to:
        return await answer_to(ASK, to.port)


async def misdirected() -> bytes:
    with TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        pairs = ", ".join(authority.pair(name).yaml() for name in ("a.test", "b.test"))
        keys = f'inbound: {{address: "127.0.0.1:0", tls: {{certificates: [{pairs}]}}}}'
        header = HEADER.replace('inbound: {address: "127.0.0.1:0"}', keys)
        async with (
            stage(saying(OK), header=header) as to,
            tls_client(to.port, authority.client(), "a.test") as client,
        ):
            await client.send(ASK.replace(b"Host: x", b"Host: b.test"))
            received = b""
            while data := await client.read():
                received += data
            return received


async def connection_reset() -> bytes:
    async def script(peer: RawPeer) -> None:
        await peer.request()

    async with stage(script) as to:
        return await answer_to(ASK, to.port)


async def incomplete_head() -> bytes:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")

    async with stage(script) as to:
        return await answer_to(ASK, to.port)


async def incomplete_after_the_head() -> bytes:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(ASK)
        await client.read_to_end()
        return client.received


async def protocol_error() -> bytes:
    async with stage(saying(b"HTTP/1.1 200 OK\r\nContent-Length: one\r\n\r\n")) as to:
        return await answer_to(ASK, to.port)


async def client_denied() -> bytes:
    async with stage(route="clients: {deny: [127.0.0.1]}") as to:
        return await answer_to(ASK, to.port)


async def body_too_large() -> bytes:
    async with stage(route="max_request_body: 1KiB") as to:
        return await answer_to(post(b"x" * 1025, b"/", ID), to.port)


async def no_route() -> bytes:
    async with stage(route="match: {path: {prefix: /app}}") as to:
        return await answer_to(ASK, to.port)


@asynccontextmanager
async def passing() -> AsyncIterator[Worker]:
    header = HEADER.replace("  outbound: {", "  outbound: {unmatched: pass_through, ")
    async with running(app_routes(9), header) as worker:
        yield worker


async def closed_address() -> bytes:
    async with passing() as worker:
        ask = b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: x\r\n" + ID + b"\r\n\r\n"
        return await answer_to(ask, port(worker, "outbound"))


async def dns_timeout() -> bytes:
    async def silent(_host: str) -> Answer:
        raise TimeoutError

    async with passing() as worker:
        worker.assembly.passing.names = SimpleNamespace(look_up=silent)
        ask = b"GET http://silent.test/ HTTP/1.1\r\nHost: x\r\n" + ID + b"\r\n\r\n"
        return await answer_to(ask, port(worker, "outbound"))


async def bad_request() -> bytes:
    async with stage() as to:
        return await answer_to(b"GET / HTTP/1.1\r\n" + ID + b"\r\n\r\n", to.port)


async def head_too_large() -> bytes:
    async with stage() as to:
        return await answer_to(
            get(b"/", *[b"x-%d: %b" % (number, b"a" * 2000) for number in range(40)]), to.port
        )


async def too_many_fields() -> bytes:
    async with stage() as to:
        return await answer_to(get(b"/", *[b"x-%d: 1" % number for number in range(200)]), to.port)


async def url_too_long() -> bytes:
    async with stage() as to:
        return await answer_to(get(b"/" + b"a" * 20_000), to.port)


async def request_timeout() -> bytes:
    async with stage(header=inbound("timeouts: {head: 2s}")) as to:
        return await answer_to(b"GET / HTTP/1.1\r\n", to.port)


async def body_timeout() -> bytes:
    async with stage(hang, header=inbound("timeouts: {body: 2s}")) as to:
        return await answer_to(
            b"PUT / HTTP/1.1\r\nHost: x\r\n" + ID + b"\r\nContent-Length: 10\r\n\r\nhalf", to.port
        )


async def loop() -> bytes:
    async with stage() as to:
        turns_taken = b", ".join([b"1.1 " + PSEUDONYM] * (MOST_TURNS + 1))
        return await answer_to(get(b"/", b"Via: " + turns_taken), to.port)


async def draining() -> bytes:
    at_once = HEADER + "drain: {delay: 0s}\n"
    async with (
        stage(hang, header=at_once) as to,
        raw_client(to.port) as client,
        raw_client(to.port) as busy,
    ):
        await busy.send(get())
        while not to.app.received:
            await turns()
        await client.send(ASK[:20])
        to.worker.control.drain.begin("a test")
        waiting = asyncio.create_task(to.worker.control.drain.wait())
        await asyncio.sleep(2 * LAST_CALL_SECONDS)
        await client.send(ASK[20:])
        await client.read_to_end()
        busy.writer.close()
        await waiting
        return client.received


CASES: tuple[Callable[[], Awaitable[bytes]], ...] = (
    circuit_open, circuit_open_grpc, circuit_open_head, circuit_open_ramping, fallback, overloaded,
    overloaded_connections,
    deadline_spent_on_arrival, deadline_too_small_to_send, timeout, attempt_timeout, timeout_grpc,
    timeout_after_the_head, connect_timeout, connection_refused, dns_error, tls_certificate, tls_protocol,
    tls_alert, misdirected, connection_reset, incomplete_head,
    incomplete_after_the_head, protocol_error, client_denied, body_too_large, no_route, closed_address,
    dns_timeout, bad_request, head_too_large, too_many_fields,
    url_too_long, request_timeout, body_timeout, loop, draining,
)  # fmt: skip


def stable(received: bytes) -> bytes:
    """The same bytes in every run: ports and the ids that the sidecar made are named, lines end in LF."""
    text = re.sub(rb"127\.0\.0\.1:[0-9]+", b"127.0.0.1:PORT", received)
    text = re.sub(rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT\r\n", b"\r\nDate: NOW\r\n", text)
    return re.sub(rb"\b[0-9a-f]{32}\b", b"MADE-ID", text).replace(b"\r\n", b"\n")


@pytest.mark.parametrize("case", CASES, ids=[case.__name__ for case in CASES])
async def test_the_answer_is_the_golden_one(case: Callable[[], Awaitable[bytes]]) -> None:
    received = await case()
    golden = GOLDEN / f"{case.__name__}.http"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_bytes(stable(received))
    assert stable(received).decode() == golden.read_text()
    method = b"HEAD" if case is circuit_open_head else b"GET"
    (response,) = read_responses(received, [method], is_ended=True)
    if response.value(b"content-type") == b"application/problem+json" and method == b"GET":
        problem = json.loads(response.body)
        assert list(problem) == ["type", "title", "status", "detail", "route", "request_id"]
        assert problem["status"] == response.status
        assert problem["request_id"].encode() == response.value(b"x-request-id")


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {case.__name__ for case in CASES}


EXPECTED = {
    "circuit_open": (503, "destination_unavailable", "circuit_open"),
    "overloaded": (503, "connection_limit_reached", "overloaded"),
    "overloaded_connections": (503, "connection_limit_reached", "overloaded"),
    "deadline_spent_on_arrival": (504, "http_response_timeout", "deadline_exceeded"),
    "deadline_too_small_to_send": (504, "http_response_timeout", "deadline_exceeded"),
    "timeout": (504, "http_response_timeout", "timeout"),
    "attempt_timeout": (504, "http_response_timeout", "timeout"),
    "connect_timeout": (504, "connection_timeout", "connection_timeout"),
    "connection_refused": (502, "connection_refused", "connection_refused"),
    "dns_error": (502, "dns_error", "dns_error"),
    "tls_certificate": (502, "tls_certificate_error", "tls_certificate_error"),
    "tls_protocol": (502, "tls_protocol_error", "tls_protocol_error"),
    "tls_alert": (502, "tls_alert_received", "tls_alert_received"),
    "misdirected": (421, "http_request_denied", "http_request_denied"),
    "connection_reset": (502, "connection_terminated", "connection_reset"),
    "incomplete_head": (502, "http_response_incomplete", "connection_reset"),
    "protocol_error": (502, "http_protocol_error", "protocol_error"),
    "client_denied": (403, "http_request_denied", "client_denied"),
    "body_too_large": (413, "http_request_error", "bad_request"),
    "no_route": (404, "destination_not_found", "no_route"),
    "closed_address": (403, "destination_ip_prohibited", "destination_ip_prohibited"),
    "dns_timeout": (504, "dns_timeout", "dns_timeout"),
    "bad_request": (400, "http_request_error", "bad_request"),
    "head_too_large": (431, "http_request_error", "bad_request"),
    "too_many_fields": (431, "http_request_error", "bad_request"),
    "url_too_long": (414, "http_request_error", "bad_request"),
    "loop": (508, "proxy_loop_detected", "proxy_loop_detected"),
    "draining": (503, "destination_unavailable", "draining"),
}
"""The contract's table, by hand: status, Proxy-Status error, `error.type`."""


@pytest.mark.parametrize("name", EXPECTED)
def test_the_golden_file_holds_what_the_contract_says(name: str) -> None:
    status, error, error_type = EXPECTED[name]
    text = (GOLDEN / f"{name}.http").read_text()
    assert text.startswith(f"HTTP/1.1 {status} ")
    assert f"\nProxy-Status: sidecar; error={error}; details=" in text
    assert f'"type": "urn:sidecar:problem:{error_type}"' in text
    assert ("\nRetry-After: " in text) is (error_type in {"circuit_open", "overloaded"})
    assert ("\nConnection: close\n" in text) or (status not in {400, 414, 431} and error_type != "draining")


def test_every_reason_has_a_scenario_but_those_that_answer_nobody() -> None:
    reasons = {reason.error_type for reason in Reason} - {"client_gone", "caller_gone"}
    assert {error_type for _, _, error_type in EXPECTED.values()} == reasons


async def test_a_request_id_is_kept_from_the_caller_sent_on_and_returned() -> None:
    async with stage() as to:
        response = await to.ask(get(b"/", b"X-Request-Id: abc-123"))
        assert (response.value(b"x-request-id"), to.requests[0].value(b"x-request-id")) == (
            b"abc-123",
            b"abc-123",
        )


@pytest.mark.parametrize(
    "lines", [(), (b"x-request-id: ",), (b"x-request-id: " + b"a" * 129,), (b"x-request-id: a b",)]
)
async def test_a_request_id_is_made_where_there_is_none_or_a_useless_one(lines: tuple[bytes, ...]) -> None:
    async with stage() as to:
        first = await to.ask(get(b"/", *lines))
        second = await to.ask(get(b"/", *lines))
        ids = [first.value(b"x-request-id"), second.value(b"x-request-id")]
        assert ids == [seen.value(b"x-request-id") for seen in to.requests]
        assert len(set(ids)) == 2
        assert all(re.fullmatch(rb"[0-9a-f]{32}", one or b"") for one in ids)


async def test_an_upstreams_own_request_id_does_not_replace_the_callers() -> None:
    async with stage(saying(b"HTTP/1.1 200 OK\r\nX-Request-Id: other\r\nContent-Length: 0\r\n\r\n")) as to:
        response = await to.ask(get(b"/", b"x-request-id: mine"))
        assert response.values(b"x-request-id") == [b"mine"]


async def test_listeners_share_no_routes() -> None:
    async with stage() as to, raw_client(port(to.worker, "outbound")) as client:
        await client.send(get())
        (response,) = await client.responses([b"GET"])
        assert response.status == 404


@pytest.mark.parametrize("is_bytewise", [False, True])
@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"HEAD / HTTP/1.1\r\n\r\n", 400),
        (b"HEAD /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"HEAD /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 20_000), 414),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"x: y\r\n" * 200), 431),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"HEAD / HTTP/2.1\r\nHost: a\r\n\r\n", 505),
        (b"HEAD / HTTP/1.1\r\nHo st: a\r\n\r\n", 400),
        (b"HEAD / HTTP/1.1\r\nHost", 408),
        (b"HEADS / HTTP/1.1\r\n\r\n", 400),
    ],
)
async def test_a_head_request_that_is_refused_gets_no_body(
    asked: bytes, status: int, *, is_bytewise: bool
) -> None:
    async with stage(saying(OK), header=inbound("timeouts: {head: 1s}")) as to, raw_client(to.port) as client:
        await client.send(asked, is_bytewise=is_bytewise and len(asked) < 1000)
        await client.read_to_end()
    head, _, body = client.received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nContent-Length: " in head
    assert bool(body) is not asked.startswith(b"HEAD ")
