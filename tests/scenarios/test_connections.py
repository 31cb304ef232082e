"""Connections are kept and shared, on both sides, and no one is given an answer that is not theirs."""

from __future__ import annotations

import asyncio

import pytest

from tests.scenarios.stage import OK, get, post, saying, stage
from tests.support.raw import RawPeer, raw_client, turns


async def test_clients_share_one_upstream_connection_when_they_come_one_after_the_other() -> None:
    async with stage() as to:
        for number in range(5):
            response = await to.ask(get(b"/%d" % number))
            assert response.body == b"GET /%d" % number
        assert len(to.app.peers) == 1
        assert (to.cluster.connections, to.cluster.pools[0].idle_count) == (1, 1)


async def test_who_has_just_connected_keeps_its_place_where_there_is_no_room_for_others() -> None:
    """Its request is on its way, so another one is told that there is no room; one that has been quiet for a while
    gives its place to who comes."""
    async with stage() as to:
        to.worker.service.max_open_connections = 1
        async with raw_client(to.port) as first:
            for _ in range(3):
                await asyncio.sleep(0.4)
                assert (await to.ask(get(b"/second"))).status == 503
                await first.send(get(b"/first"))
                await first.read_some()
            assert first.received.count(b"HTTP/1.1 200 OK") == 3
            assert [request.target for request in to.requests] == [b"/first"] * 3
            await asyncio.sleep(0.6)
            assert (await to.ask(get(b"/second"))).status == 200
            await first.read_to_end()


async def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    gate = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            await gate.wait()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%b" % request.target)

    async with stage(script) as to:
        asked = [asyncio.create_task(to.ask(get(b"/%d" % number))) for number in range(5)]
        while len(to.requests) < 5:
            await turns()
        gate.set()
        assert [response.body for response in await asyncio.gather(*asked)] == [
            b"/0",
            b"/1",
            b"/2",
            b"/3",
            b"/4",
        ]
        assert len(to.app.peers) == 5
        assert to.cluster.pools[0].idle_count == 5


async def test_an_idle_upstream_connection_is_closed_when_its_time_is_up() -> None:
    async with stage(upstream="timeouts: {idle: 10s}") as to:
        await to.ask()
        await asyncio.sleep(8)
        assert to.app.open_count == 1
        await asyncio.sleep(4)
        assert (to.app.open_count, to.cluster.connections) == (0, 0)


async def closes_behind_its_answer(peer: RawPeer) -> None:
    """Says nothing of it, so the connection looks reusable for a moment."""
    await peer.request()
    await peer.send(OK)


async def test_a_pooled_connection_that_has_been_closed_costs_nobody_anything() -> None:
    async with stage(closes_behind_its_answer) as to:
        for _ in range(3):
            assert (await to.ask()).status == 200
            await turns(10)
        assert len(to.app.peers) == 3


def closes_on_reuse(*, then: bytes = OK) -> tuple[list[bytes], object]:
    """The first connection answers once and closes when it is asked again: too late for the pool to know."""
    seen: list[bytes] = []

    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            seen.append(request.method + b" " + request.target)
            if peer.number == 0 and len(peer.requests) == 2:
                return
            await peer.send(then if peer.number else OK)

    return seen, script


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
async def test_an_idempotent_request_gets_one_fresh_connection_when_a_pooled_one_was_closed(
    method: bytes,
) -> None:
    seen, script = closes_on_reuse()
    async with stage(script) as to:  # type: ignore[arg-type]
        await to.ask()
        response = await to.ask(b"%b /again HTTP/1.1\r\nHost: x\r\n\r\n" % method, method)
        assert response.status == 200
        assert seen == [b"GET /", method + b" /again", method + b" /again"]
        assert len(to.app.peers) == 2
        assert to.breaker.state.value == "closed"


@pytest.mark.parametrize("body", [b"", b"data"])
async def test_a_post_is_not_sent_twice(body: bytes) -> None:
    seen, script = closes_on_reuse()
    async with stage(script) as to:  # type: ignore[arg-type]
        await to.ask()
        response = await to.ask(post(body, b"/buy"), b"POST")
        assert response.status == 502
        assert b"error=connection_terminated" in (response.value(b"proxy-status") or b"")
        assert seen == [b"GET /", b"POST /buy"]


async def test_a_request_whose_body_has_begun_is_not_sent_twice() -> None:
    seen, script = closes_on_reuse()
    async with stage(script) as to:  # type: ignore[arg-type]
        await to.ask()
        request = post(b"data", b"/put").replace(b"POST", b"PUT")
        assert (await to.ask(request, b"PUT")).status == 502
        assert seen == [b"GET /", b"PUT /put"]


async def test_there_is_one_fresh_try_and_no_more() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.send(OK)
            await peer.request()

    async with stage(script) as to:
        await to.ask()
        assert (await to.ask()).status == 502
        assert len(to.app.peers) == 2


async def test_a_connection_that_dies_in_the_middle_of_an_answer_is_never_tried_again() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Len")

    async with stage(script) as to:
        await to.ask()
        assert (await to.ask()).status == 502
        assert len(to.app.peers) == 1


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            if request.target == b"/0":
                await asyncio.sleep(3)
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%b" % request.target)

    async with stage(script) as to:
        requests = b"".join(get(b"/%d" % number) for number in range(8))
        answers = await to.ask_all(requests, [b"GET"] * 8)
        assert [answer.body for answer in answers] == [b"/%d" % number for number in range(8)]
        assert [request.target for request in to.requests] == [b"/%d" % number for number in range(8)]


async def test_many_pipelined_requests_are_all_answered() -> None:
    async with stage() as to:
        requests = b"".join(get(b"/%d" % number) for number in range(150))
        answers = await to.ask_all(requests, [b"GET"] * 150)
        assert [answer.body for answer in answers] == [b"GET /%d" % number for number in range(150)]


async def test_pipelined_requests_with_bodies_keep_their_own() -> None:
    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            await peer.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.body) + request.body
            )

    async with stage(script) as to:
        bodies = [b"a" * 10, b"", b"b" * 70_000, b"c"]
        answers = await to.ask_all(b"".join(post(body) for body in bodies), [b"POST"] * 4)
        assert [answer.body for answer in answers] == bodies


async def test_what_is_pipelined_behind_a_close_is_not_answered() -> None:
    async with stage() as to, raw_client(to.port) as client:
        await client.send(get(b"/1", b"Connection: close") + get(b"/2"))
        await client.read_to_end()
        assert client.received.count(b"HTTP/1.1 200 OK") == 1
        assert [request.target for request in to.requests] == [b"/1"]


async def test_a_client_that_leaves_takes_its_pipelined_requests_with_it() -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await peer.read_some()

    async with stage(script) as to:
        async with raw_client(to.port) as client:
            await client.send(get(b"/1") + get(b"/2") + get(b"/3"))
            while not to.requests:
                await turns()
        await turns(20)
        assert [request.target for request in to.requests] == [b"/1"]
        assert to.app.open_count == 0


async def test_a_kept_connection_takes_the_next_request_after_an_answer_of_the_sidecars_own() -> None:
    async with stage(route="match: {path: {prefix: /app}}") as to:
        missed, served = await to.ask_all(get(b"/other") + get(b"/app"), [b"GET", b"GET"])
        assert (missed.status, missed.value(b"connection")) == (404, None)
        assert (served.status, served.body) == (200, b"GET /app")


async def test_an_answer_before_the_end_of_a_long_request_body_closes_the_client_after_it() -> None:
    early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nlong"

    async def script(peer: RawPeer) -> None:
        await peer.head()
        await peer.send(early)
        await peer.read_some()

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\nfirst")
        (response,) = await client.responses([b"POST"])
        assert (response.status, response.body) == (413, b"long")
        await client.read_to_end()
        assert not client.is_reset
        assert to.cluster.connections == 0


async def test_bytes_past_the_end_of_an_answer_reach_nobody() -> None:
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    async with stage(saying(OK + smuggled)) as to:
        for _ in range(2):
            assert (await to.ask()).body == b"ok"
        assert len(to.app.peers) == 2


async def test_bytes_on_an_idle_connection_close_it() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.request()
        await peer.send(OK)
        await turns(20)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await peer.read_some()

    async with stage(script) as to:
        assert (await to.ask()).body == b"ok"
        await turns(60)
        assert to.cluster.connections == 0
        assert (await to.ask()).body == b"ok"


async def test_a_half_closed_client_is_gone() -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.read_some():
            pass

    async with stage(script) as to, raw_client(to.port) as client:
        await client.send(get())
        while not to.app.received:
            await turns()
        client.writer.write_eof()
        await turns(20)
        assert to.app.open_count == 0


async def test_waiting_requests_get_the_next_free_connection_in_their_order() -> None:
    order: list[bytes] = []

    async def script(peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            order.append(request.target)
            await asyncio.sleep(1)
            await peer.send(OK)

    async with stage(script, upstream="limits: {max_connections: 1}") as to:
        asked = []
        for number in range(4):
            asked.append(asyncio.create_task(to.ask(get(b"/%d" % number))))
            await turns(10)
        assert to.cluster.pending == 3
        assert [answer.status for answer in await asyncio.gather(*asked)] == [200] * 4
        assert order == [b"/0", b"/1", b"/2", b"/3"]
        assert len(to.app.peers) == 1
        # One opened the connection, the others had to wait for 1, 2 and 3 seconds.
        counts, seconds, _ = to.cluster.waited.state
        assert (sum(counts), round(seconds, 1)) == (4, 6.0)
        (told,) = [one for one in to.worker.sources().upstreams if one.name == to.cluster.name]
        assert told.waits == (counts, seconds)


async def test_a_waiting_request_that_is_given_up_leaves_the_line() -> None:
    async def script(peer: RawPeer) -> None:
        while await peer.request() is not None:
            await asyncio.sleep(2)
            await peer.send(OK)

    async with stage(script, upstream="limits: {max_connections: 1}") as to:
        first = asyncio.create_task(to.ask())
        while not to.requests:
            await turns()
        late = await to.ask(get(b"/late", b"x-request-timeout-ms: 500"))
        assert (late.status, to.cluster.pending) == (504, 0)
        counts, seconds, _ = to.cluster.waited.state
        assert (sum(counts), round(seconds, 1)) == (2, 0.5), "of who gave up as well"
        assert (await first).status == 200
        assert len(to.requests) == 1
