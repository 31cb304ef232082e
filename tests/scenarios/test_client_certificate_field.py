"""`X-Forwarded-Client-Cert` says who a client is, so a client never says it itself (SPEC-PROTOCOLS 13)."""

from __future__ import annotations

import pytest

from tests.scenarios.stage import app_routes, get, inbound, saying, stage
from tests.support.proxy import HEADER, port, running
from tests.support.raw import Request, raw_client, raw_upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def told(request: Request) -> list[bytes]:
    """All values that the app has got, in the head and behind the body."""
    return [value for _, value in (*request.fields, *request.trailers)]


SPELLINGS = (
    b"X-Forwarded-Client-Cert", b"x-forwarded-client-cert", b"X_Forwarded_Client_Cert", b"x-forwarded_client-cert",
)  # fmt: skip
CLAIM = b"URI=spiffe://cluster.local/ns/admin"


@pytest.mark.parametrize("mode", ["set", "append", "keep", "off"])
@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_what_a_caller_says_of_its_certificate_stops_here(spelling: bytes, mode: str) -> None:
    async with stage(header=inbound(f"forwarded: {mode}")) as to, raw_client(to.port) as client:
        await client.send(get(b"/", b"%b: %b" % (spelling, CLAIM), b"X-Kept: yes"))
        (answer,) = await client.responses([b"GET"])
        assert answer.status == 200
        (request,) = to.requests
        assert request.values(b"x-kept") == [b"yes"]
        assert CLAIM not in told(request)


async def test_no_route_is_chosen_by_it() -> None:
    match = "match: {headers: {x-forwarded-client-cert: {present: true}}}"
    async with stage(route=match) as to, raw_client(to.port) as client:
        await client.send(get(b"/", b"X-Forwarded-Client-Cert: " + CLAIM))
        (answer,) = await client.responses([b"GET"])
        assert answer.status == 404


async def test_trailers_do_not_bring_it_either() -> None:
    body = b"2\r\nhi\r\n0\r\nX-Forwarded-Client-Cert: " + CLAIM + b"\r\nX_forwarded_client_cert: " + CLAIM
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with stage() as to, raw_client(to.port) as client:
        await client.send(head + body + b"\r\nX-Kept: yes\r\n\r\n")
        (answer,) = await client.responses([b"POST"])
        assert answer.status == 200
        (request,) = to.requests
        assert b"yes" in told(request)
        assert CLAIM not in told(request)


async def test_what_the_app_itself_sends_goes_on() -> None:
    async with raw_upstream(saying(OK)) as other:
        routes = app_routes(other.port, route="listener: outbound")
        async with running(routes, HEADER) as worker, raw_client(port(worker, "outbound")) as client:
            await client.send(get(b"/", b"X-Forwarded-Client-Cert: " + CLAIM))
            (answer,) = await client.responses([b"GET"])
            assert answer.status == 200
        assert other.requests[0].values(b"x-forwarded-client-cert") == [CLAIM]


async def test_what_went_on_before_a_reload_stops_on_the_same_connection_after_it() -> None:
    async with raw_upstream(saying(OK)) as other:
        routes = app_routes(other.port, route="listener: outbound")
        async with running(routes, HEADER) as worker, raw_client(port(worker, "outbound")) as client:
            listener = worker.listeners["outbound"]
            listener.tells_of_client = True  # as of `forwarded: append`
            for number, is_owned in enumerate((False, False, False, True, True), 1):
                listener.owns_client_cert = is_owned
                await client.send(get(b"/", b"X-Forwarded-Client-Cert: " + CLAIM))
                assert len(await client.responses([b"GET"] * number)) == number
        seen = [request.values(b"x-forwarded-client-cert") for request in other.requests]
        assert seen == [[CLAIM], [CLAIM], [CLAIM], [], []]
