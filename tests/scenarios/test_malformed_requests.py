"""Malformed and ambiguous requests: refused, or forwarded in a form that can be read in one way only.

Each case of the corpus is sent whole, byte by byte, and with a second request behind it, which must be answered as
a request of its own or never be seen by the upstream. Some are also cut in two at every place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum

import pytest

from sidecar.runtime.worker import Worker
from tests.scenarios.corpus import requests_connection, requests_framing, requests_head
from tests.scenarios.corpus.outcomes import Cut, Forwarded, Refused, RequestCase, RequestOutcome
from tests.support.clean import Complaints, assert_clean
from tests.support.proxy import HEADER, port, running
from tests.support.raw import (
    RawClient,
    RawPeer,
    RawUpstream,
    Request,
    Response,
    echo_of,
    raw_client,
    raw_upstream,
)

CASES = [*requests_framing.CASES, *requests_head.CASES, *requests_connection.CASES]
INBOUND = f"""\
{{
    address: "127.0.0.1:0",
    timeouts: {{head: 2s, body: 2s, idle: 5s}},
    limits: {{
      head: {requests_head.HEAD_BYTES}B,
      headers: {requests_head.HEADERS},
      url: {requests_head.URL_BYTES}B,
    }},
  }}"""
LISTENERS = HEADER.replace('inbound: {address: "127.0.0.1:0"}', f"inbound: {INBOUND}")
ROUTES = """\
upstreams: {{app: {{endpoints: ["127.0.0.1:{port}"], limits: {{max_connections: 2}}}}}}
routes: [{{name: app, upstream: app, timeouts: {{request: 100s}}}}]
"""
SECOND = b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


CUT_IN_TWO = (
    "connection-close-in-a-list", "upgrade-websocket-declined", "upgrade-h2c-in-a-list", "te-trailers",
    "pipeline-good-then-bad", "pipeline-empty-lines-between", "pipeline-bad-behind-a-lone-cr",
    "pipeline-body-too-long-and-more", "pipeline-body-too-long-by-no-token", "pipeline-connect-between",
    "cl-equal-twice", "cl-plus", "cl-te", "cl-line-folded", "te-gzip", "te-xchunked", "te-gzip-chunked",
    "te-chunked-chunked", "te-twice", "te-in-other-case", "te-in-http-1.0", "chunk-size-two-cr",
    "te-chunked-gzip", "chunk-ext-quoted-pair", "chunk-ext-quoted-crlf", "chunk-data-too-long",
    "chunk-trailer-with-nul", "trailer-connection-close", "trailers-forbidden",
    "line-method-with-junk", "line-method-of-32-bytes", "line-method-of-33-bytes", "line-two-targets",
    "line-version-1.2", "line-version-2.0", "line-version-1.10", "line-connect", "line-two-cr", "line-bare-cr",
    "line-empty-ones-in-front", "line-behind-lone-cr", "line-behind-two-cr", "line-behind-empty-line-and-lone-cr",
    "line-behind-empty-line-and-space", "absolute-differs-from-host", "http-1.0-no-host", "host-missing",
    "host-comma", "field-folded", "field-no-colon", "field-value-with-cr", "field-value-spaced",
    "head-ends-with-bare-lf", "head-ends-with-bare-cr",
)  # fmt: skip
"""One of each kind: heads in every form that is read by another rule, what is in front of them and behind."""
BY_NAME = {case.name: case for case in CASES}


class Way(Enum):
    WHOLE = "whole"
    BYTEWISE = "bytewise"
    FOLLOWED = "followed"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_request_has_one_meaning_or_none(case: RequestCase) -> None:
    """In each way that it may come, by the same sidecar."""
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with (
            raw_upstream() as upstream,
            running(ROUTES.format(port=upstream.port), LISTENERS) as worker,
        ):
            for way in Way:
                if case.can_be_followed or way is not Way.FOLLOWED:
                    await _has_one_meaning(case, way, upstream, worker)
    assert complaints.found == []


async def _has_one_meaning(case: RequestCase, way: Way, upstream: RawUpstream, worker: Worker) -> None:
    before = len(upstream.requests)
    async with raw_client(port(worker)) as client:
        await client.send(case.data, is_bytewise=way is Way.BYTEWISE)
        outcomes = list(case.outcomes)
        if way is Way.FOLLOWED:
            await client.send(SECOND)
            if not _is_end(outcomes[-1]):
                outcomes.append(Forwarded(b"/second"))
        responses = await _converse(client, outcomes)
    await assert_clean(worker)
    assert upstream.open_count == worker.assembly.clusters["app"].connections
    _check_client_side(responses, outcomes)
    _check_upstream_side(upstream, upstream.requests[before:], outcomes)


@pytest.mark.parametrize("name", CUT_IN_TWO)
async def test_a_request_cut_in_two_means_what_it_means_whole(name: str) -> None:
    case = BY_NAME[name]
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with (
            raw_upstream() as upstream,
            running(ROUTES.format(port=upstream.port), LISTENERS) as worker,
        ):
            for at in range(1, len(case.data)):
                outcomes = list(case.outcomes)
                before = len(upstream.requests)
                async with raw_client(port(worker)) as client:
                    await client.send(case.data[:at])
                    await client.send(case.data[at:])
                    responses = await _converse(client, outcomes)
                _check_client_side(responses, outcomes)
                _check_requests(upstream, upstream.requests[before:], outcomes)
            await assert_clean(worker)
        assert upstream.problems == []
    assert complaints.found == []


def test_every_name_of_the_corpus_is_one_case() -> None:
    assert len(BY_NAME) == len(CASES)


def _is_end(outcome: RequestOutcome) -> bool:
    return not isinstance(outcome, Forwarded) or outcome.closes


async def _converse(client: RawClient, outcomes: list[RequestOutcome]) -> list[Response]:
    """Read all answers; where the connection should be alive afterwards, use it once more to prove it."""
    methods = [_method(outcome) for outcome in outcomes]
    if not _is_end(outcomes[-1]):
        await client.responses(methods)
        await client.send(LAST)
        outcomes.append(Forwarded(b"/last", closes=True))
        methods.append(b"GET")
    await client.read_to_end()
    assert not client.is_reset, f"the connection was reset behind {client.received!r}"
    return await client.responses(methods)


def _method(outcome: RequestOutcome) -> bytes:
    return outcome.method if isinstance(outcome, Forwarded) else b"GET"


def _check_client_side(responses: Sequence[Response], outcomes: Sequence[RequestOutcome]) -> None:
    assert len(responses) == len(outcomes), [response.status for response in responses]
    for response, outcome in zip(responses, outcomes, strict=True):
        assert not response.is_cut
        if isinstance(outcome, Forwarded):
            answer = b"" if outcome.method == b"HEAD" else outcome.method + b" " + outcome.target
            assert (response.status, response.body) == (200, answer)
        else:
            assert response.status == outcome.status, response.body
            proxy_status = response.value(b"proxy-status") or b""
            assert proxy_status.startswith(b"sidecar; error=http_request_error; details="), proxy_status
            assert response.value(b"content-type") == b"application/problem+json"
        closes = (response.value(b"connection") or b"").lower() == b"close"
        assert closes == _is_end(outcome)


def _check_upstream_side(
    upstream: RawUpstream, requests: Sequence[Request], outcomes: Sequence[RequestOutcome]
) -> None:
    assert upstream.problems == []
    _check_requests(upstream, requests, outcomes)
    if isinstance(outcomes[-1], Refused):
        assert [peer.rest for peer in upstream.peers] == [b""] * len(upstream.peers)
    if isinstance(outcomes[-1], Cut):
        assert all(not peer.is_open for peer in upstream.peers if peer.rest)
        assert b"/second" not in upstream.received


def _check_requests(
    upstream: RawUpstream, requests: Sequence[Request], outcomes: Sequence[RequestOutcome]
) -> None:
    good = [outcome for outcome in outcomes if isinstance(outcome, Forwarded)]
    assert [(one.method, one.target) for one in requests] == [(one.method, one.target) for one in good]
    for request, outcome in zip(requests, good, strict=True):
        own = b"127.0.0.1:%d" % upstream.port if outcome.host is None else outcome.host
        assert request.value(b"host") == own
        _check_request(request, outcome)


def _check_request(request: Request, outcome: Forwarded) -> None:
    assert (request.framing, request.body) == (outcome.framing, outcome.body)
    assert tuple(request.trailers) == outcome.trailers
    for name, value in outcome.has:
        assert request.values(name) == [value]
    for name in outcome.lacks:
        assert request.values(name) == []


@pytest.mark.parametrize("way", [Way.WHOLE, Way.BYTEWISE])
async def test_an_upgrade_behind_another_request_is_decided_in_its_turn(way: Way) -> None:
    """What follows it waits as bytes, so it is the other protocol's: the upstream never sees it as a request."""
    inside = b""

    async def serve(peer: RawPeer) -> None:
        nonlocal inside
        while (request := await peer.request()) is not None:
            if not request.values(b"upgrade"):
                await peer.send(echo_of(request.method, request.target))
                continue
            await peer.send(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while len(peer.rest) < len(LAST) and await peer.read_some():
                pass
            inside, peer.rest = peer.rest, b""
            await peer.send(b"hello")
            return

    upgrade = b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with raw_upstream(serve) as upstream, running(ROUTES.format(port=upstream.port)) as worker:
        async with raw_client(port(worker)) as client:
            await client.send(SECOND + upgrade + LAST, is_bytewise=way is Way.BYTEWISE)
            await client.read_to_end()
        await assert_clean(worker)
    answer, _, rest = client.received.partition(b"GET /second")
    assert answer.startswith(b"HTTP/1.1 200 ")
    head, _, data = rest.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert data == b"hello"
    assert inside == LAST
    assert [request.target for request in upstream.requests] == [b"/second", b"/upgrade"]
    assert upstream.problems == []
