"""Answers of an upstream that speaks HTTP/2, to a client that speaks HTTP/1.1: each says where its body ends."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.http2.codec import Role
from sidecar.http2.connection import Connection
from sidecar.http2.errors import ErrorCode
from sidecar.http2.events import RequestReceived
from tests.scenarios.stage import app_routes
from tests.scenarios.websockets import http2_app
from tests.support.http2_ends import Stream
from tests.support.proxy import port, running
from tests.support.raw import raw_client

TIMES = 5
"""A head that has come often enough is read from memory, and must be written like the first."""
REFUSING = """\
upstreams: {{app: {{endpoints: ["127.0.0.1:{one}", "127.0.0.1:{other}"], protocol: http2}}}}
routes: [{{name: app, upstream: app}}]
"""


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("says_length", [False, True])
@pytest.mark.parametrize("status", [200, 204])
@pytest.mark.parametrize("pieces", [1, 2])
async def test_an_answer_ends_where_its_head_says_however_often_it_comes(
    method: bytes, says_length: bool, status: int, pieces: int
) -> None:
    has_body = method == b"GET" and status == 200
    body = b"0123456789" if has_body else b""

    def answer(_: RequestReceived, stream: Stream) -> None:
        end, http2_stream = stream._connection, stream._stream
        pairs = ((b"content-length", b"10"),) if says_length and status == 200 else ()
        end.codec.send_head(http2_stream, status, (), pairs=pairs, is_end=not has_body)
        loop = asyncio.get_running_loop()
        if not has_body:
            end.flush()
        elif pieces == 1:
            finish(stream, body)
        else:
            end.flush()
            loop.call_later(0.01, finish, stream, body)

    def finish(stream: Stream, data: bytes) -> None:
        end = stream._connection
        end.codec.send_data(stream._stream, data)
        end.codec.end(stream._stream)
        end.flush()

    async with (
        http2_app(lambda: Connection(Role.SERVER), answer, lambda _: None) as number,
        running(app_routes(number, upstream="protocol: http2")) as worker,
        raw_client(port(worker)) as client,
    ):
        for count in range(1, TIMES + 1):
            await client.send(method + b" /a HTTP/1.1\r\nHost: a\r\n\r\n")
            responses = await asyncio.wait_for(client.responses([method] * count), 5.0)
            assert len(responses) == count
            assert (responses[-1].status, responses[-1].body) == (status, body)


async def test_the_date_of_an_answer_is_its_own_however_often_it_comes() -> None:
    date = b"Mon, 01 Jan 2024 00:00:00 GMT"

    def answer(_: RequestReceived, stream: Stream) -> None:
        end = stream._connection
        pairs = ((b"date", date), (b"age", b"0"), (b"content-length", b"0"))
        end.codec.send_head(stream._stream, 200, (), pairs=pairs, is_end=True)
        end.flush()

    async with (
        http2_app(lambda: Connection(Role.SERVER), answer, lambda _: None) as number,
        running(app_routes(number, upstream="protocol: http2")) as worker,
        raw_client(port(worker)) as client,
    ):
        for _ in range(TIMES):
            await client.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        responses = await client.responses([b"GET"] * TIMES)
        assert [one.value(b"date") for one in responses] == [date] * TIMES


async def test_where_all_endpoints_refuse_the_stream_a_request_is_sent_twice_and_no_more() -> None:
    asked = []

    def refuse(event: RequestReceived, stream: Stream) -> None:
        asked.append(event)
        end = stream._connection
        end.codec.reset(stream._stream, ErrorCode.REFUSED_STREAM)
        end.flush()

    async with (
        http2_app(lambda: Connection(Role.SERVER), refuse, lambda _: None) as one,
        http2_app(lambda: Connection(Role.SERVER), refuse, lambda _: None) as other,
        running(REFUSING.format(one=one, other=other)) as worker,
        raw_client(port(worker)) as client,
    ):
        await client.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        (response,) = await client.responses([b"GET"])
    assert (response.status, len(asked)) == (502, 2)


@pytest.mark.parametrize("how", ["reset", "broken rule"])
async def test_an_upstream_that_ends_a_stream_itself_is_asked_once_and_counted(how: str) -> None:
    """Also on a connection that had been idle: that was not closed, so nothing was in vain."""
    asked = []

    def fail(event: RequestReceived, stream: Stream) -> None:
        asked.append(event.path)
        end = stream._connection
        if event.path == b"/good":
            end.codec.send_head(stream._stream, 200, (), is_end=True)
        elif how == "reset":
            end.codec.reset(stream._stream, ErrorCode.INTERNAL_ERROR)
        else:
            end.flush()
            end.writer.write(b"\0\0\1\0\0\0\0\0\0x")  # DATA for the connection
        end.flush()

    async with (
        http2_app(lambda: Connection(Role.SERVER), fail, lambda _: None) as number,
        running(app_routes(number, upstream="protocol: http2")) as worker,
        raw_client(port(worker)) as client,
    ):
        statuses = []
        for path in (b"/good", b"/bad", b"/good", b"/bad"):
            await client.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            (response,) = await client.responses([b"GET"])
            statuses.append(response.status)
            client.received = b""
        tally = worker.assembly.breakers["app", "app"].tally
    assert statuses == [200, 502, 200, 502]
    assert asked == [b"/good", b"/bad", b"/good", b"/bad"]
    assert (tally.successful, tally.failed) == (2, 2)
