"""Hostile, broken and ambiguous responses: one client gets a clean answer or none, and nobody else notices.

Each case of the corpus is what an upstream says on its first connection; on every later one, and to every later
request, it is honest and answers with the request's own method and target. So a client that gets anything else was
given what belongs to another. The upstream allows one connection: one that is leaked is missed at once.
Some cases are also cut in two at every place.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from enum import Enum

import pytest
import uvloop

from sidecar.runtime.worker import Worker
from tests.scenarios.corpus import responses as corpus
from tests.scenarios.corpus.outcomes import Aborted, BadGateway, Relayed, ResponseCase, Tunnelled
from tests.support.clean import Complaints, assert_clean
from tests.support.proxy import HEADER, port, running
from tests.support.raw import RawClient, RawPeer, RawUpstream, Response, raw_client, raw_upstream

ROUTES = """\
upstreams: {{app: {{endpoints: ["127.0.0.1:{port}"], limits: {{max_connections: 1}}}}}}
routes: [{{name: app, upstream: app, circuit_breaker: {{mode: disabled}}}}]
"""
REST_OF_BODY = b"lo12345"
SECOND = b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n"
OTHER = b"GET /other HTTP/1.1\r\nHost: b\r\n\r\n"
MOMENT_SECONDS = 0.01
RESET = struct.pack("ii", 1, 0)


CUT_IN_TWO = (
    "line-end-in-front", "204-with-length", "304-with-length-zero-chunked", "two-lengths", "length-and-chunked",
    "length-plus", "length-folded", "length-space-around", "connection-of-junk", "te-gzip", "te-chunked-chunked",
    "te-in-http-1.0", "te-in-other-case", "chunk-leading-zeros", "chunk-ext-quoted-pair",
    "chunk-trailer-connection-close", "trailers-forbidden", "status-two-digits", "status-two-spaces",
    "status-version-1.2", "status-version-lower-case", "status-bare-lf", "status-bare-cr", "status-cr-in-reason",
    "status-without-reason", "status-without-reason-or-space", "status-is-http2", "field-without-colon",
    "field-folded", "field-value-with-bare-cr", "field-two-cr", "head-ends-with-bare-lf", "head-of-bare-lf",
    "101-unasked", "100-unasked", "1xx-several", "1xx-with-zero-length", "100-with-length", "103-with-chunks",
    "103-with-body", "http-1.0-with-length", "keep-alive-timeout", "keep-alive-timeout-of-0",
)  # fmt: skip
"""One of each kind whose outcome is the same wherever it is cut."""
BY_NAME = {case.name: case for case in corpus.CASES}


class Way(Enum):
    WHOLE = "whole"
    BYTEWISE = "bytewise"
    PIPELINED = "pipelined"
    """The client's second request is there before the answer to the first one."""


def _ways(case: ResponseCase) -> list[Way]:
    # What comes out of turn on a connection would, with a second request on its way, be an answer to that one:
    # HTTP/1.1 has nothing to tell them apart by.
    is_out_of_turn = len(case.parts) > 1 or case.when == "accept"
    has_no_end = case.when == "head" or isinstance(case.outcome, Tunnelled)
    return [Way.WHOLE, Way.BYTEWISE] if is_out_of_turn or has_no_end else list(Way)


LISTENERS = HEADER.replace(
    'inbound: {address: "127.0.0.1:0"}',
    "".join(f'\n  {way.value}: {{address: "127.0.0.1:0", direction: inbound}}' for way in Way).strip(),
)
"""One for each way."""
UPSTREAM = '  {way}: {{endpoints: ["127.0.0.1:{port}"], limits: {{max_connections: 1}}}}\n'
ROUTE = "- {{name: {way}, listener: {way}, upstream: {way}, circuit_breaker: {{mode: disabled}}}}\n"


@pytest.mark.parametrize("case", corpus.CASES, ids=lambda case: case.name)
async def test_an_answer_is_clean_or_none_and_its_own(case: ResponseCase) -> None:
    """In each way that it may come, by one sidecar with an upstream for each."""
    with Complaints(asyncio.get_running_loop()) as complaints:
        async with AsyncExitStack() as stack:
            upstreams = {
                way: await stack.enter_async_context(raw_upstream(_server(case, way))) for way in _ways(case)
            }
            ports = [(way.value, upstream.port) for way, upstream in upstreams.items()]
            said = "".join(UPSTREAM.format(way=name, port=at) for name, at in ports)
            routes = "".join(ROUTE.format(way=name) for name, _ in ports)
            worker = await stack.enter_async_context(
                running(f"upstreams:\n{said}routes:\n{routes}", LISTENERS)
            )
            for way, upstream in upstreams.items():
                await _is_clean_or_none(_as_it_comes(case, way), way, upstream, worker)
    assert complaints.found == []


def _as_it_comes(case: ResponseCase, way: Way) -> ResponseCase:
    is_other = way is Way.BYTEWISE and case.in_pieces is not None
    return replace(case, outcome=case.in_pieces) if is_other else case


def _server(case: ResponseCase, way: Way) -> Callable[[RawPeer], Awaitable[None]]:
    async def serve(peer: RawPeer) -> None:
        if peer.number == 0 and not await _misbehave(peer, case, is_bytewise=way is Way.BYTEWISE):
            return
        await peer.echo()

    return serve


async def _is_clean_or_none(case: ResponseCase, way: Way, upstream: RawUpstream, worker: Worker) -> None:
    to = port(worker, way.value)
    async with raw_client(to) as client, raw_client(to) as other:
        first, second = await _converse(client, case, is_pipelined=way is Way.PIPELINED)
        await asyncio.sleep(MOMENT_SECONDS * 3)
        await other.send(OTHER)
        (others,) = await other.responses([b"GET"])
        if second is None and not client.is_ended and not isinstance(case.outcome, Tunnelled):
            second = await _ask_again(client, case)
    await assert_clean(worker)
    assert sum(pool.idle_count for pool in worker.assembly.clusters[way.value].pools) == 1
    _check_connections(upstream, case)
    _check_first(first, client, case)
    assert (others.status, others.body) == (200, b"GET /other")
    assert second is None or (second.status, second.body) == (200, b"GET /second")
    assert (second is None) == _is_last(case)
    assert upstream.problems == []


@pytest.mark.parametrize("name", CUT_IN_TWO)
async def test_an_answer_cut_in_two_means_what_it_means_whole(name: str) -> None:
    case = BY_NAME[name]
    (data,) = case.parts
    pieces = (b"", b"")

    async def serve(peer: RawPeer) -> None:
        while await peer.request() is not None:
            for piece in pieces:
                await peer.send(piece)

    with Complaints(asyncio.get_running_loop()) as complaints:
        async with raw_upstream(serve) as upstream, running(ROUTES.format(port=upstream.port)) as worker:
            for at in range(1, len(data)):
                pieces = data[:at], data[at:]
                async with raw_client(port(worker)) as client:
                    await client.send(case.request)
                    (response,) = await client.responses([case.request.partition(b" ")[0]])
                _check_first(response, client, case)
            await assert_clean(worker)
        assert upstream.problems == []
    assert complaints.found == []


def test_every_name_of_the_corpus_is_one_case() -> None:
    assert len(BY_NAME) == len(corpus.CASES)


async def _misbehave(peer: RawPeer, case: ResponseCase, *, is_bytewise: bool) -> bool:
    """Say what the case says; returns whether the connection stays."""
    if case.when == "head":
        await peer.head()
    elif case.when == "request":
        await peer.request()
    for number, part in enumerate(case.parts):
        if number:
            await asyncio.sleep(MOMENT_SECONDS)
        await peer.send(part, is_bytewise=is_bytewise)
    if case.then == "stay":
        if case.when == "head":
            await peer.request()  # has had its answer
        return True
    await asyncio.sleep(MOMENT_SECONDS)
    if case.then == "reset":
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        peer.writer.transport.abort()
    return False


async def _converse(
    client: RawClient, case: ResponseCase, *, is_pipelined: bool
) -> tuple[Response | None, Response | None]:
    """Send the case's request; returns its answer and, if the second one is sent with it, that one's."""
    methods = [case.request.partition(b" ")[0]]
    data = case.request
    if is_pipelined:
        methods.append(b"GET")
        data += _behind(case)
    await client.send(data)
    if isinstance(case.outcome, Tunnelled):
        await client.read_to_end()
        client.writer.close()  # each direction ends by itself, and only then does the tunnel
        return None, None
    responses: list[Response | None] = [*await client.responses(methods)]
    if _is_last(case):
        await client.read_to_end()
    return ([*responses, None, None])[0], ([*responses, None, None])[1]


def _behind(case: ResponseCase) -> bytes:
    return (REST_OF_BODY if case.request == corpus.POST_UNFINISHED else b"") + SECOND


async def _ask_again(client: RawClient, case: ResponseCase) -> Response:
    """A second request on the first one's connection."""
    client.received = b""
    await client.send(_behind(case))
    (response,) = await client.responses([b"GET"])
    return response


def _is_last(case: ResponseCase) -> bool:
    outcome = case.outcome
    return isinstance(outcome, Aborted | Tunnelled) or outcome.closes


def _check_first(response: Response | None, client: RawClient, case: ResponseCase) -> None:
    outcome = case.outcome
    if isinstance(outcome, Tunnelled):
        head, _, data = client.received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert data == outcome.data
    elif isinstance(outcome, Aborted):
        _check_aborted(response, client)
    elif isinstance(outcome, BadGateway):
        assert response is not None
        assert response.status == 502
        assert (response.value(b"proxy-status") or b"").startswith(b"sidecar; error=%b; " % outcome.error)
        assert outcome.interims is None or _statuses(response) == outcome.interims
        assert not response.is_cut
    else:
        assert response is not None
        _check_relayed(response, outcome)


def _check_aborted(response: Response | None, client: RawClient) -> None:
    assert client.is_ended
    assert response is None or response.is_cut or client.is_reset, "it looks whole"


def _check_relayed(response: Response, outcome: Relayed) -> None:
    assert not response.is_cut
    assert (response.status, response.body) == (outcome.status, outcome.body)
    assert _statuses(response) == outcome.interims
    assert tuple(response.trailers) == outcome.trailers
    for name, value in outcome.has:
        assert response.values(name) == [value]
    for name in outcome.lacks:
        assert response.values(name) == []
    hop_by_hop = {b"keep-alive", b"upgrade", b"proxy-connection", b"te"}
    for fields in (response.fields, *(fields for _, fields in response.interims)):
        assert not hop_by_hop & {name for name, _ in fields}
        assert b"x-a" not in {name for name, _ in fields}


def _statuses(response: Response) -> tuple[int, ...]:
    return tuple(status for status, _ in response.interims)


def _check_connections(upstream: RawUpstream, case: ResponseCase) -> None:
    """What was tainted is closed, what was not is used again, and nothing else is open."""
    assert len(upstream.peers) == (1 if case.keeps else 2)
    assert [peer.is_open for peer in upstream.peers] == ([True] if case.keeps else [False, True])


def test_a_cut_answer_to_http_1_0_is_reset_on_uvloop_too() -> None:
    """Without chunks or a length, an orderly end of the connection would say that the answer is whole. The two
    loops differ in what they still send after an abort, so this one case is held on the real one as well."""

    async def serve(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(corpus.chunked(b"50\r\nhello"))
        await asyncio.sleep(MOMENT_SECONDS)

    def ask(to: int) -> bytes:
        with socket.create_connection(("127.0.0.1", to), timeout=5) as client:
            client.sendall(corpus.HTTP10)
            answer = b""
            while not answer.endswith(b"hello"):
                answer += client.recv(65536)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            return answer

    async def scenario() -> bytes:
        async with raw_upstream(serve) as upstream, running(ROUTES.format(port=upstream.port)) as worker:
            return await asyncio.to_thread(ask, port(worker))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scenario()).startswith(b"HTTP/1.1 200 ")
