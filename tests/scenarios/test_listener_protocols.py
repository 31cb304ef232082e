"""What a listener speaks that says `protocol: http1` or `http2`: that alone, whatever the first bytes look like."""

from __future__ import annotations

import pytest

from tests.http2.wire import GOAWAY, frames_of
from tests.scenarios.stage import GET, OK, app_routes, saying
from tests.support.http2_ends import Stream, http2_client
from tests.support.proxy import HEADER, port, running
from tests.support.raw import raw_client, raw_upstream

PSEUDO = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"x"), (b":path", b"/"))


def header(protocol: str, more: str = "") -> str:
    listener = 'inbound: {address: "127.0.0.1:0"'
    assert listener in HEADER
    return HEADER.replace(listener, f"{listener}, protocol: {protocol}{more}")


@pytest.mark.parametrize("more", ["", ", trust: none"])
@pytest.mark.parametrize(
    "request_",
    [GET, GET * 2, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na", b"GET / HTTP/1.0\r\n\r\n"],
    ids=["plain", "twice", "with a body", "HTTP/1.0"],
)
async def test_a_listener_of_http2_alone_takes_no_request_of_http1(request_: bytes, more: str) -> None:
    async with (
        raw_upstream(saying(OK)) as app,
        running(app_routes(app.port), header("http2", more)) as worker,
        raw_client(port(worker)) as client,
    ):
        await client.send(request_)
        await client.read_to_end()
        assert [one.kind for one in frames_of(client.received)][-1] == GOAWAY
        assert app.requests == []


async def test_a_listener_of_http2_alone_takes_it_by_prior_knowledge() -> None:
    async with (
        raw_upstream(saying(OK)) as app,
        running(app_routes(app.port), header("http2")) as worker,
        http2_client(port(worker)) as end,
    ):
        for _ in range(2):
            stream = Stream(end, end.codec.open_stream(PSEUDO, (), is_end=True))
            end.flush()
            assert await stream.head() == 200
            assert await stream.read_to_end() == b"ok"
        assert len(app.requests) == 2


async def test_a_listener_of_http1_alone_takes_no_preface() -> None:
    async with (
        raw_upstream(saying(OK)) as app,
        running(app_routes(app.port), header("http1")) as worker,
        raw_client(port(worker)) as client,
    ):
        await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        (response,) = await client.responses([b"PRI"])
        assert response.status == 505
        assert app.requests == []
