"""What a client's connection holds is charged while it holds it, and given back at its end."""

from __future__ import annotations

import socket
import tracemalloc

import pytest

from sidecar.core.memory_budget import CONNECTION_BYTES, STEP_BYTES, Held, charge_of_head
from sidecar.core.snapshot import Address, RetryPolicy
from sidecar.downstream.http1 import ClientConnection
from sidecar.downstream.phase import Phase
from sidecar.transport.bind import Bound
from tests.downstream.stage import GET, Stage, post
from tests.support.by_hand import Path

LONG = b"GET / HTTP/1.1\r\nHost: app\r\n" + b"x-long: %s\r\n" % (b"a" * 9000)


def held(stage: Stage) -> int:
    """Above the connections' own 4 KiB."""
    memory = stage.path.service.memory
    return memory.used_bytes - CONNECTION_BYTES * memory.connections


def test_a_plain_request_costs_nothing_beyond_its_connection() -> None:
    stage = Stage()
    assert stage.path.service.memory.used_bytes == CONNECTION_BYTES
    stage.serve()
    assert held(stage) == 0
    stage.lose()
    assert stage.path.service.memory.used_bytes == 0


async def test_with_many_connections_each_socket_of_the_address_gives_its_own_smaller_buffers() -> None:
    """A process that has taken over may have several: those of each worker of the one before."""
    stage = Stage()
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as another:

        async def bind(_address: Address, _key: str) -> Bound:
            return Bound.of(one, accepts=False, others=(another,))

        await stage.listener.bind(bind)
        stage.listener.start()
        usual = another.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        stage.path.service.memory.buffer_bytes = 4096
        assert stage.listener.accept(ClientConnection(stage.listener))
        first, second = (each.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for each in (one, another))
        assert first == second < usual


def test_the_beginning_of_a_head_is_charged_in_steps_and_given_back_with_the_connection() -> None:
    stage = Stage()
    stage.send(LONG[:100])
    assert held(stage) == STEP_BYTES
    stage.send(LONG[100:])
    assert held(stage) == 3 * STEP_BYTES
    stage.lose()
    assert held(stage) == 0


def test_a_large_head_is_charged_with_its_fields_until_it_is_answered() -> None:
    stage = Stage()
    lease = stage.upstream()
    stage.send(LONG, b"\r\n")
    size = charge_of_head(len(LONG) + 2, 2)
    assert held(stage) == -(-size // STEP_BYTES) * STEP_BYTES
    stage.answer(lease)
    assert held(stage) == 0
    assert stage.phase is Phase.IDLE


def test_a_short_body_keeps_nothing_of_what_came_with_it() -> None:
    """What a client sends behind its last request belongs to nobody and is charged to nobody."""
    stage = Stage(Path(retry=RetryPolicy(attempts=1)))
    stage.upstream()
    tracemalloc.start()
    try:
        stage.send(post(1, b"Connection: close") + b"y" + b"z" * 5_000_000)
        exchanges = len(stage.path.service.exchanges)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert exchanges == 1
    assert kept < 2_500_000
    assert held(stage) == 0


def test_what_waits_behind_a_request_is_charged_until_it_is_taken_up() -> None:
    stage = Stage()
    first = stage.upstream()
    stage.send(GET + GET * 200)
    assert held(stage) >= len(GET) * 200
    for _ in range(200):
        second = stage.upstream()
        stage.answer(first)
        stage.path.loop.settle()
        first = second
    stage.answer(first)
    assert held(stage) == 0


def test_what_a_client_does_not_take_is_charged_with_the_kernels_part() -> None:
    stage = Stage()
    lease = stage.upstream()
    stage.send(GET)
    stage.transport.unsent = 50_000
    stage.connection.pause_writing()
    kernel = stage.path.service.memory.buffer_bytes
    assert held(stage) == 13 * STEP_BYTES + kernel
    stage.transport.unsent = 0
    stage.connection.resume_writing()
    assert held(stage) == 0
    stage.answer(lease)


@pytest.mark.parametrize(
    ("reads", "phase", "expected"),
    [
        ((), Phase.IDLE, Held.IDLE),
        ((LONG,), Phase.HEAD, Held.HEAD),
        ((post(100), b"b"), Phase.BODY, Held.BODY),
    ],
)
def test_who_does_not_go_on_can_be_closed_and_gives_all_back(
    reads: tuple[bytes, ...], phase: Phase, expected: Held
) -> None:
    stage = Stage()
    stage.send(*reads)
    assert stage.phase is phase
    stage.path.loop.now += 3.0
    claim = stage.connection.claim(stage.path.loop.now)
    assert claim is not None
    assert (claim.address, claim.seconds) == ("192.0.2.1", 3.0)
    assert claim.size == CONNECTION_BYTES + held(stage)
    assert stage.connection.end_for_memory() is expected
    assert held(stage) == 0
    assert stage.transport.is_aborted


def test_a_request_that_is_whole_is_left_alone_and_what_is_behind_it_dropped() -> None:
    stage = Stage()
    lease = stage.upstream()
    stage.send(GET)
    assert stage.connection.claim(stage.path.loop.now) is None
    assert stage.connection.end_for_memory() is None
    stage.send(GET * 500)
    claim = stage.connection.claim(stage.path.loop.now)
    assert claim is not None
    assert claim.size == len(GET) * 500
    assert stage.connection.end_for_memory() is Held.PIPELINE
    assert held(stage) == 0
    stage.answer(lease)
    assert stage.statuses() == [200]
    assert stage.transport.has_ended_writing or stage.transport.is_closing()


def test_what_is_behind_an_upgrade_is_not_dropped_without_the_upgrade() -> None:
    """The other end would take what comes later for the beginning."""
    stage = Stage()
    stage.upstream()
    stage.send(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
    assert stage.connection.end_for_memory() is None
    stage.send(b"ahead" * 2000)
    assert stage.connection.end_for_memory() is Held.PIPELINE
    assert stage.transport.is_aborted
    assert held(stage) == 0
    assert not stage.path.service.exchanges


def test_a_large_head_is_refused_where_there_is_no_memory() -> None:
    stage = Stage()
    memory = stage.path.service.memory
    memory.is_full = True
    stage.send(LONG + b"\r\n")
    assert stage.statuses() == [503]
    assert memory.refused == 1
    assert held(stage) == 0
    other, transport = stage.connect()
    stage.upstream()
    other.data_received(GET)
    assert transport.take() == b"", "a small one is on its way"
