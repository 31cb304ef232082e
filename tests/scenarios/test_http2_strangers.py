"""A client that speaks HTTP/2 meets the same rules: limits, strangers, what can be read in two ways."""

from __future__ import annotations

import json

import pytest

from sidecar.config.load import load_text
from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.events import DataReceived, ResponseReceived
from tests.scenarios.stage import OK, app_routes, inbound, saying, stage
from tests.support.raw import RawClient, raw_client

Pairs = tuple[tuple[bytes, bytes], ...]
MATCH = "match: [{headers: {x-debug: '1'}, query: {beta: '1'}}, {path: {prefix: /}}]"
STRANGE = inbound("trust: none")


async def ask(
    port: int, path: bytes, *pairs: tuple[bytes, bytes], host: bytes = b"x"
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, fields and body of one answer."""
    codec = Connection(Role.CLIENT)
    pseudo: Pairs = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", path), (b":authority", host))
    async with raw_client(port) as client:
        codec.open_stream(pseudo, (), pairs=pairs, is_end=True)
        await client.send(codec.take())
        status, fields, body, read = 0, {}, b"", 0
        while True:
            while len(client.received) == read:
                await client.read_some()
            data, read = client.received[read:], len(client.received)
            for event in codec.receive(data, 0.0):
                if isinstance(event, ResponseReceived):
                    status, fields = event.status, dict(event.lookup)
                if isinstance(event, DataReceived):
                    body += event.data
                if isinstance(event, ResponseReceived | DataReceived) and event.is_end:
                    return status, fields, body


@pytest.mark.parametrize(
    ("path", "pairs", "status"),
    [
        (b"/", ((b"x-debug", b"1"),), 200),
        (b"/", ((b"x-debug", b"1"), (b"x-debug", b"2")), 400),
        (b"/", ((b"x_debug", b"1"),), 400),
        (b"/?beta=1", (), 200),
        (b"/?beta=1&beta=2", (), 400),
        (b"/?beta[]=1", (), 400),
    ],
)
async def test_what_can_be_read_in_two_ways_is_400(path: bytes, pairs: Pairs, status: int) -> None:
    async with stage(saying(OK), route=MATCH, header=STRANGE) as to:
        assert (await ask(to.port, path, *pairs))[0] == status
    if status == 400 and (b"x_debug", b"1") not in pairs:
        async with stage(saying(OK), route=MATCH) as to:
            assert (await ask(to.port, path, *pairs))[0] == 200


async def test_a_strangers_trace_starts_anew() -> None:
    trace_id = b"4bf92f3577b34da6a3ce929d0e0e4736"
    pairs = (
        (b"traceparent", b"00-%b-00f067aa0ba902b7-01" % trace_id),
        (b"baggage", b"a=1"),
        (b"x-request-id", b"theirs"),
        (b"x_other", b"1"),
        (b"x-envoy-expected-rq-timeout-ms", b"1"),
    )
    async with stage(saying(OK), header=STRANGE) as to:
        status, fields, _ = await ask(to.port, b"/", *pairs)
        (seen,) = to.requests
        assert status == 200
        assert trace_id not in (seen.value(b"traceparent") or b"")
        assert fields[b"x-request-id"] == seen.value(b"x-request-id") != b"theirs"
        assert (seen.value(b"baggage"), seen.value(b"x_other")) == (None, None)


async def test_header_operations_act_on_underscores() -> None:
    async with stage(saying(OK), route="request_headers: {remove: [x-debug]}") as to:
        await ask(to.port, b"/", (b"x_debug", b"1"), (b"x_other", b"1"))
        assert (to.requests[0].value(b"x_debug"), to.requests[0].value(b"x_other")) == (None, b"1")


@pytest.mark.parametrize(
    ("path", "pair", "status"),
    [
        (b"/?" + b"&" * 1023, (b"a", b"b"), 200),
        (b"/?" + b"&" * 1024, (b"a", b"b"), 431),
        (b"/", (b"cookie", b";".join([b"a=b"] * 256)), 200),
        (b"/", (b"cookie", b";".join([b"a=b"] * 257)), 431),
    ],
)
async def test_the_limits_hold(path: bytes, pair: tuple[bytes, bytes], status: int) -> None:
    async with stage(saying(OK)) as to:
        assert (await ask(to.port, path, pair))[0] == status


async def test_answers_of_our_own_tell_a_stranger_the_reason_alone() -> None:
    async with stage(saying(OK), route="match: {hosts: [inner.test]}", header=STRANGE) as to:
        status, fields, body = await ask(to.port, b"/")
    assert (status, fields[b"proxy-status"]) == (
        404,
        b'sidecar; error=destination_not_found; details="no_route"',
    )
    assert json.loads(body)["detail"] == "no_route"


async def test_a_host_that_is_read_in_several_ways_is_400() -> None:
    async with stage(saying(OK)) as to:
        assert (await ask(to.port, b"/", host=b"010.0.0.1"))[0] == 400


async def test_a_connection_that_has_sent_http_1_1_never_becomes_one_of_http_2() -> None:
    async with stage(saying(OK)) as at, raw_client(at.port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [one.status for one in await client.responses([b"GET"])] == [200]
        codec = Connection(Role.CLIENT)
        await client.send(codec.take())
        answers = await client.responses([b"GET", b"PRI"])
        assert answers[-1].status in (400, 505)
        await client.read_to_end()


@pytest.mark.parametrize(("before", "after"), [("all", "none"), ("none", "all")])
async def test_a_head_that_is_known_is_believed_as_its_listener_says_now(before: str, after: str) -> None:
    """A reload changes whom a listener believes; connections that are there stay, with what they have sent."""
    codec = Connection(Role.CLIENT)
    pseudo: Pairs = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"x"))

    async def same_again(client: RawClient) -> None:
        codec.open_stream(pseudo, (), pairs=[(b"x-envoy-original-path", b"/forged")], is_end=True)
        await client.send(codec.take())
        is_answered = False
        while not is_answered:
            read = len(client.received)
            await client.read_some()
            events = codec.receive(client.received[read:], 0.0)
            is_answered = any(isinstance(event, DataReceived) and event.is_end for event in events)

    async with (
        stage(saying(OK), header=inbound(f"trust: {before}")) as to,
        raw_client(to.port) as client,
    ):
        for _ in range(4):
            await same_again(client)
        text = inbound(f"trust: {after}") + app_routes(to.app.port)
        await to.worker.control.active.install(load_text(text).snapshot)
        for _ in range(2):
            await same_again(client)
        came = [request.value(b"x-envoy-original-path") == b"/forged" for request in to.requests]
    assert came == [before == "all"] * 4 + [after == "all"] * 2
