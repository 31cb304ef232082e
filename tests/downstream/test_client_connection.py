"""A client's connection: one request at a time, bounded work and memory, and no answer has a part of another."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.downstream.http1_flow import MAX_BEHIND_BYTES
from sidecar.downstream.phase import Phase
from sidecar.transport.turns import REQUEST_UNITS, SLICE_UNITS, TURN_UNITS
from sidecar.upstream.http1 import UpstreamConnection
from sidecar.upstream.lease import Fate
from tests.downstream.stage import GET, NO_ROUTE, Stage, post
from tests.support.by_hand import Handle, HandTransport, connected

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


# One request at a time


def test_a_request_behind_another_waits_as_bytes_until_that_one_is_answered() -> None:
    stage = Stage()
    first, second = stage.upstream(), stage.upstream()
    stage.send(GET + GET[:10], GET[10:])
    assert len(stage.path.service.exchanges) == 1
    assert (second.heard_by is None) != (first.heard_by is None)
    taken, other = (first, second) if first.heard_by else (second, first)
    stage.answer(taken)
    assert other.heard_by is not None
    stage.answer(other)
    assert (stage.statuses(), stage.phase) == ([200, 200], Phase.IDLE)


def test_what_waits_is_bounded_by_not_reading_the_client() -> None:
    stage = Stage()
    lease = stage.upstream()
    stage.send(GET)
    stage.send(bytes(MAX_BEHIND_BYTES))
    assert not stage.transport.is_paused
    stage.send(b"x")
    assert stage.transport.is_paused
    assert len(stage.path.service.exchanges) == 1
    stage.answer(lease)
    assert stage.statuses() == [200, 400]  # what waited was no request


def test_reading_goes_on_when_what_waited_was_taken() -> None:
    stage = Stage()
    lease = stage.upstream()
    upload = post(MAX_BEHIND_BYTES)
    stage.send(GET)
    stage.send(upload + bytes(MAX_BEHIND_BYTES - len(upload)), bytes(len(upload)))
    stage.send(b"")
    second = stage.upstream()
    stage.answer(lease)
    assert second.names == ["head", "end"]
    assert not stage.transport.is_paused
    stage.answer(second)
    assert stage.statuses() == [200, 200]


def test_many_requests_in_one_read_are_answered_in_order_a_bounded_number_a_turn() -> None:
    stage = Stage(listener=NO_ROUTE)
    each = TURN_UNITS // REQUEST_UNITS
    stage.send(GET * (2 * each + 5))
    counts = [len(stage.statuses())]
    assert stage.transport.is_paused
    for _ in range(3):
        stage.loop.turn()
        counts.append(len(stage.statuses()))
    assert counts == [each + 1, each, 4, 0]  # the very first one is not asked for units
    assert not stage.transport.is_paused


def test_one_client_with_many_requests_leaves_a_turn_to_others() -> None:
    stage = Stage(listener=NO_ROUTE)
    greedy = stage.connection
    other, transport = stage.connect()
    greedy.data_received(GET * 1_000)
    other.data_received(GET)
    stage.loop.turn()
    stage.loop.turn()
    assert transport.written.startswith(b"HTTP/1.1 404")
    assert len(stage.statuses()) < 1_000


def test_many_tiny_chunks_take_several_turns_and_arrive_in_order() -> None:
    stage = Stage()
    lease = stage.upstream()
    count = 2 * SLICE_UNITS + 1
    stage.send(b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n")
    stage.send(b"1\r\na\r\n" * count + b"0\r\n\r\n" + GET)
    assert [len(note[1]) for note in lease.notes if note[0] == "data"] == [SLICE_UNITS]
    assert stage.transport.is_paused
    stage.loop.settle()
    body = b"".join(note[1] for note in lease.notes if note[0] == "data")
    assert (body, lease.names[-1]) == (b"a" * count, "end")
    assert not stage.transport.is_paused
    stage.upstream()
    stage.answer(lease)
    assert len(stage.path.service.exchanges) == 1  # the GET behind it


# Limits and ends


def test_a_connection_beyond_the_limit_is_answered_503_and_counted() -> None:
    stage = Stage(connections=1)
    connection, transport = stage.connect()
    assert stage.listener.refused_connections == 1
    connection.data_received(GET)
    assert transport.take().startswith(b"HTTP/1.1 503 ")
    connection.connection_lost(None)
    assert stage.listener.connection_count == 1


def test_beyond_twice_as_many_as_can_be_told_a_connection_is_closed_at_once_and_counted() -> None:
    stage = Stage(connections=1)
    most = 2 * stage.path.service.beside.visitors.most
    told = [stage.connect() for _ in range(most)]
    connection, transport = stage.connect()
    assert transport.is_aborted
    assert not any(other.is_aborted for _, other in told)
    assert (stage.listener.refused_connections, stage.listener.connection_count) == (most + 1, most + 1)
    connection.connection_lost(None)
    assert stage.listener.connection_count == most + 1


@pytest.mark.parametrize("reads", [[b"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n"], [b"\x16\x03\x01"]])
def test_what_cannot_be_read_is_answered_and_nothing_behind_it_is_read(reads: list[bytes]) -> None:
    stage = Stage()
    stage.send(*reads, GET)
    assert stage.statuses() == [400]
    assert stage.phase is Phase.LINGER
    assert stage.path.in_flight == (0, [0])


def test_a_client_that_leaves_ends_its_exchange_and_what_it_sent_behind_is_dropped() -> None:
    stage = Stage()
    lease = stage.upstream()
    other = stage.upstream()
    stage.send(GET + GET)
    stage.lose(ConnectionResetError())
    assert [one.fates for one in (lease, other)] in ([[Fate.BROKEN], []], [[], [Fate.BROKEN]])
    assert [status for status, _, _ in stage.path.told.finishes] == [499]
    assert stage.transport.written == b""


def test_in_a_drain_an_answer_closes_its_connection() -> None:
    stage = Stage()
    lease = stage.upstream()
    stage.send(GET)
    stage.listener.stop_accepting()
    stage.answer(lease)
    assert b"\r\nConnection: close\r\n" in stage.transport.take()
    assert stage.phase is Phase.CLOSING


@pytest.mark.plain
def test_an_error_of_ours_ends_its_connection_and_exchange_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    lease = stage.upstream()
    stage.send(post(10))
    other, transport = stage.connect()
    exchange = stage.connection._exchange
    assert exchange is not None
    monkeypatch.setattr(type(exchange), "data", raising)
    stage.send(b"12345")
    assert [type(error) for error in stage.loop.errors] == [LookupError]
    assert (stage.transport.is_aborted, lease.fates) == (True, [Fate.BROKEN])
    assert stage.path.in_flight == (0, [0])
    assert stage.path.service.exchanges == set()
    stage.upstream()
    other.data_received(GET)
    assert len(stage.path.service.exchanges) == 1
    assert not transport.is_aborted


def raising(*_: object) -> None:
    raise LookupError("broken")


# What a dead attempt still says


Event = Callable[[UpstreamConnection], object]
EVENTS: dict[str, Event] = {
    "an answer": lambda dead: dead.data_received(OK),
    "the rest of one": lambda dead: dead.data_received(b"rest of the body"),
    "an interim head": lambda dead: dead.data_received(b"HTTP/1.1 103 Early\r\n\r\n"),
    "garbage": lambda dead: dead.data_received(b"\x00"),
    "its end": lambda dead: dead.eof_received(),
    "too much of the request": lambda dead: dead.pause_writing(),
    "room for the request": lambda dead: dead.resume_writing(),
    "closed": lambda dead: dead.connection_lost(None),
    "reset": lambda dead: dead.connection_lost(ConnectionResetError()),
}


def upstream_connection(stage: Stage) -> tuple[UpstreamConnection, HandTransport]:
    """An idle connection to the upstream; the next request takes it."""
    cluster = stage.path.cluster
    cluster.idle_timer = Handle()  # type: ignore[assignment]  # armed: idle times are the cluster's own test
    pool = cluster.pools[0]
    connection = UpstreamConnection(pool)
    transport = connected(connection)
    cluster.connections += 1
    pool.add(connection)
    pool.idle[connection] = None
    return connection, transport


def end_whole(stage: Stage, dead: UpstreamConnection) -> None:
    dead.data_received(OK)
    assert stage.statuses() == [200]
    del stage.path.cluster.pools[0].idle[dead]  # else the next request would have a right to hear it


def end_early(stage: Stage, dead: UpstreamConnection) -> None:
    """The request's body was not whole: the connection to the upstream is closed, that of the client goes on."""
    dead.data_received(OK)
    assert stage.statuses() == [200]
    stage.send(b"x" * 10)


def end_late(stage: Stage, dead: UpstreamConnection) -> None:
    stage.loop.advance(15.1)
    assert stage.statuses() == [504]


ENDS: dict[str, tuple[bytes, Callable[[Stage, UpstreamConnection], None]]] = {
    "answered": (GET, end_whole),
    "answered before its body": (post(10), end_early),
    "out of time": (GET, end_late),
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
@pytest.mark.parametrize(("asked", "end"), ENDS.values(), ids=ENDS.keys())
def test_nothing_that_a_dead_attempt_hears_changes_the_next_exchange(
    asked: bytes, end: Callable[[Stage, UpstreamConnection], None], event: Event
) -> None:
    stage = Stage()
    dead, _ = upstream_connection(stage)
    stage.send(asked)
    end(stage, dead)
    assert stage.phase is Phase.IDLE
    alive, _ = upstream_connection(stage)
    stage.send(post(4) + b"ab")
    (exchange,) = stage.path.service.exchanges
    before = (stage.phase, stage.transport.is_paused, list(stage.transport.calls))
    event(dead)
    stage.loop.settle()
    assert stage.transport.written == b""
    assert (stage.phase, stage.transport.is_paused, stage.transport.calls) == before
    assert stage.path.service.exchanges == {exchange}
    stage.send(b"cd")
    alive.data_received(OK.replace(b"200", b"201"))
    assert stage.statuses() == [201]
    assert stage.path.in_flight == (0, [0])
    assert len(stage.path.told.finishes) == 2


def test_the_next_clients_pace_does_not_reach_a_dead_attempts_connection() -> None:
    stage = Stage()
    dead, dead_transport = upstream_connection(stage)
    stage.send(GET)
    end_whole(stage, dead)
    dead_transport.take()
    alive, alive_transport = upstream_connection(stage)
    stage.send(GET)
    alive.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    stage.connection.pause_writing()
    assert (alive_transport.calls, dead_transport.calls) == (["pause"], [])
    stage.connection.resume_writing()
    assert (alive_transport.calls, dead_transport.calls) == (["pause", "resume"], [])
    assert dead_transport.written == b""
