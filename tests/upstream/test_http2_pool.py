"""Which connection carries the next stream, when another one is opened, and when each is closed."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from sidecar.core.ejection.change import Health
from sidecar.core.errors import Reason
from sidecar.http2.settings import AGE_JITTER, AGE_SECONDS
from sidecar.http2.streams import STREAMS_BEFORE_SETTINGS
from sidecar.transport.turns import ENDS_A_TURN
from sidecar.upstream.cluster import Wait
from sidecar.upstream.connecting import Connecting
from sidecar.upstream.http2_pool import JOIN_MOST, MORE_EVERY_SECONDS, Http2Pool
from sidecar.upstream.lease import Fate
from tests.http2 import wire
from tests.support.by_hand import THERE, HandConnecting, Waiting
from tests.support.raw import turns
from tests.upstream.http2_stage import Asking, Call, Upstream


def end(call: Call) -> None:
    call.place.release(Fate.REUSABLE, asyncio.get_running_loop().time())


def names(told: list[tuple[object, ...]]) -> list[object]:
    return [note[1] for note in told]


# Which one


async def test_the_connection_with_fewest_streams_is_taken(connectings: list[HandConnecting]) -> None:
    upstream = Upstream()
    first, second = upstream.connect(), upstream.connect()
    calls = [upstream.ask() for _ in range(4)]
    assert (first.connection.codec.load.open_streams, second.connection.codec.load.open_streams) == (2, 2)
    end_of_first = [call for call in calls if call.place._connection is first.connection]
    first.say(wire.answer(1), wire.answer(3))
    for call in end_of_first:
        end(call)
    assert upstream.ask().place._connection is first.connection
    assert connectings == []


async def test_one_address_gets_a_second_connection_as_soon_as_the_first_is_busy(
    connectings: list[HandConnecting],
) -> None:
    """A service's virtual address pins each connection to one pod."""
    upstream = Upstream()
    upstream.connect()
    upstream.ask()
    assert connectings == []
    upstream.ask()
    upstream.ask()
    assert len(connectings) == 1


async def test_a_second_connection_that_is_refused_is_tried_again_a_second_later(
    connectings: list[HandConnecting],
) -> None:
    upstream = Upstream()
    upstream.connect()
    upstream.ask()
    upstream.ask()
    connectings[0].fail()
    upstream.ask()
    assert len(connectings) == 1
    await asyncio.sleep(MORE_EVERY_SECONDS)
    upstream.ask()
    assert len(connectings) == 2


async def test_max_connections_holds_for_the_second_one_too(connectings: list[HandConnecting]) -> None:
    upstream = Upstream(max_connections=1)
    upstream.connect()
    upstream.ask()
    upstream.ask()
    assert connectings == []


# A peer's limit of streams


async def test_at_the_peers_limit_another_connection_is_opened(connectings: list[HandConnecting]) -> None:
    upstream = Upstream()
    upstream.connect(limit=1)
    upstream.ask()
    assert upstream.pool.take(0.0, is_sure=True) is None
    waiting = Waiting()
    upstream.seek(waiting)
    assert len(connectings) == 1
    upstream.open(connectings[0])
    assert names(waiting.told) == ["leased"]


async def test_who_waits_in_line_gets_the_place_of_a_stream_that_ends(
    connectings: list[HandConnecting],
) -> None:
    upstream = Upstream(max_connections=1)
    peer = upstream.connect(limit=1)
    call = upstream.ask()
    waiting = [Asking(), Asking()]
    for one in waiting:
        upstream.seek(one)
    assert upstream.cluster.pending == 2
    peer.say(wire.answer(1))
    end(call)
    assert [len(one.calls) for one in waiting] == [1, 0]
    peer.say(wire.answer(3))
    end(waiting[0].calls[0])
    assert (len(waiting[1].calls), upstream.cluster.pending) == (1, 0)


async def test_who_waits_gets_no_place_at_another_endpoint_that_is_left_out(
    connectings: list[HandConnecting],
) -> None:
    """Its connection makes room with its last stream."""
    upstream = Upstream(max_connections=1)
    cluster = upstream.cluster
    peer = upstream.connect(limit=2)
    calls = [upstream.ask() for _ in range(2)]
    other = cluster._join_peers(cluster.pool_for(Http2Pool, THERE), 0.0)
    cluster._use([upstream.pool, other], 0.0)
    waits = [Asking(), Asking()]
    for one in waits:
        assert isinstance(cluster.wait_for(other, one), Wait)
    upstream.pool.standing.health = Health.EJECTED
    cluster.peers.usable -= 1
    for number, call in enumerate(calls):
        assert connectings == []
        peer.say(wire.answer(2 * number + 1))
        end(call)
    (opened,) = connectings
    assert opened.pool is other
    assert [one.calls for one in waits] == [[], []]
    assert cluster.connections == 1


async def test_a_limit_is_remembered_for_the_next_connection_of_its_endpoint(
    connectings: list[HandConnecting],
) -> None:
    """Else each new connection would have a hundred streams refused before its SETTINGS are there."""
    upstream = Upstream()
    assert upstream.pool.may_join == JOIN_MOST == STREAMS_BEFORE_SETTINGS
    upstream.connect(limit=1)
    upstream.ask()
    waiting = [Asking() for _ in range(3)]
    for one in waiting:
        upstream.seek(one)
    assert [len(one.seekers) for one in connectings] == [1, 1, 1]
    peer = upstream.open(connectings[0])
    assert not peer.connection.has_room
    assert [len(one.calls) for one in waiting] == [1, 0, 0]


async def test_who_joined_and_has_no_place_stands_first_in_line(connectings: list[HandConnecting]) -> None:
    upstream = Upstream(max_connections=1)
    waiting = [Asking() for _ in range(3)]
    for one in waiting:
        upstream.seek(one)
    upstream.pool.stream_limit = 2
    peer = upstream.open(connectings[0])
    assert [len(one.calls) for one in waiting] == [1, 1, 0]
    assert upstream.cluster.pending == 1
    peer.say_settings(3)
    assert (len(waiting[2].calls), upstream.cluster.pending) == (1, 0)


async def test_a_peer_that_allows_no_stream_is_not_connected_to_again_and_again(
    connectings: list[HandConnecting],
) -> None:
    upstream = Upstream()
    upstream.pool.stream_limit = 0
    upstream.seek(Asking())
    upstream.open(connectings[0])
    assert (len(connectings), upstream.cluster.pending) == (1, 1)


# Joining


async def test_many_wait_for_the_same_connection_up_to_a_bound(connectings: list[HandConnecting]) -> None:
    upstream = Upstream()
    for _ in range(JOIN_MOST + 1):
        upstream.seek()
    assert [len(one.seekers) for one in connectings] == [JOIN_MOST, 1]


async def test_nobody_joins_a_connecting_that_was_called_off() -> None:
    """Between its cancellation and its end there is a turn of the loop; who came then was never told anything."""
    upstream = Upstream()
    upstream.seek().cancel()
    waiting = Waiting()
    second = upstream.seek(waiting)
    assert isinstance(second.connecting, Connecting)
    assert not second.connecting.is_called_off
    second.cancel()
    await turns(5)
    assert upstream.cluster.connections == 0


async def test_who_leaves_is_not_remembered_by_what_is_connecting() -> None:
    upstream = Upstream()
    stays = upstream.seek()
    for _ in range(10):
        upstream.seek().cancel()
    assert stays.connecting is not None
    assert len(stays.connecting.waits) == 1
    stays.cancel()
    await turns(5)


async def test_a_connection_that_is_lost_at_once_is_counted_no_longer(
    connectings: list[HandConnecting],
) -> None:
    upstream = Upstream()
    waiting = [Waiting(), Waiting()]
    for one in waiting:
        upstream.seek(one)
    connection = upstream.pool.new_connection()
    upstream.pool.add(connection)  # it never was open
    assert (upstream.pool.open_count, upstream.cluster.connections) == (0, 0)
    assert upstream.pool.hand_out(connection, connectings[0].seekers) == []
    assert [one.told[0][1:] for one in waiting] == [("not leased", Reason.CONNECTION_RESET)] * 2
    assert [one.uncounted for one in waiting] == [0, 1]


# Their end


async def test_what_is_idle_is_closed_when_its_time_is_up(connectings: list[HandConnecting]) -> None:
    upstream = Upstream()
    peer = upstream.connect()
    call = upstream.ask()
    await asyncio.sleep(59)
    peer.say(wire.answer(1))
    end(call)
    await asyncio.sleep(59)
    assert peer.connection.is_open
    await asyncio.sleep(1.1)
    assert not peer.connection.is_open
    assert wire.GOAWAY in [one.kind for one in await peer.frames()]


async def test_an_old_connection_takes_no_more_and_ends_with_its_last_stream(
    connectings: list[HandConnecting],
) -> None:
    upstream = Upstream()
    peer = upstream.connect()
    call = upstream.ask()
    await asyncio.sleep(AGE_SECONDS * (1 - AGE_JITTER) - 1)
    assert peer.connection.has_room
    await asyncio.sleep(AGE_SECONDS * 2 * AGE_JITTER + 2)
    assert not peer.connection.has_room
    peer.say(wire.answer(1))
    assert call.sink.names == ["answered"]
    end(call)
    assert not peer.connection.is_open


async def test_a_retired_pool_closes_what_is_idle_and_the_rest_in_time(
    connectings: list[HandConnecting],
) -> None:
    upstream = Upstream()
    busy = upstream.connect()
    call = upstream.ask()
    idle = upstream.connect()
    upstream.pool.retire()
    assert (busy.connection.is_open, idle.connection.is_open) == (True, False)
    busy.say(wire.answer(1))
    end(call)
    assert (busy.connection.is_open, upstream.pool.open_count) == (False, 0)


async def test_a_connection_that_comes_after_its_pool_has_retired_is_closed(
    connectings: list[HandConnecting],
) -> None:
    upstream = Upstream()
    upstream.seek()
    upstream.pool.retire()
    connectings[0].seekers.clear()
    peer = upstream.open(connectings[0])
    assert (peer.connection.is_open, upstream.pool.open_count) == (False, 0)


async def test_one_that_takes_nothing_is_cut_where_others_are_closed(
    connectings: list[HandConnecting],
) -> None:
    upstream = Upstream()
    peer = upstream.connect()
    peer.connection.pause_writing()
    upstream.pool.retire()
    assert peer.transport.is_aborted


@pytest.mark.parametrize("how", ["retired", "memory", "idle for long"])
async def test_of_many_that_are_closed_together_a_few_are_in_a_turn_and_none_takes_a_stream_meanwhile(
    how: str, connectings: list[HandConnecting]
) -> None:
    upstream = Upstream()
    pool, now, count = upstream.pool, upstream.loop.time(), 2 * ENDS_A_TURN + 10
    for _ in range(count):
        upstream.connect()
    if how == "retired":
        pool.retire()
    elif how == "memory":
        assert (pool.close_all_idle(), pool.close_all_idle()) == (count, 0)
    else:
        pool.close_idle(60.0, now + 60.0)
        assert pool.idle_due(60.0) == inf, "nobody has to look again for these"
    left = [pool.open_count]
    assert pool.take(now, is_sure=True) is None
    while upstream.turns_loop.is_ready:
        upstream.turns_loop.turn()
        left.append(pool.open_count)
    assert left[:3] == [count - ENDS_A_TURN, count - 2 * ENDS_A_TURN, 0]
    assert upstream.cluster.connections == 0


@pytest.mark.parametrize("count", [1, 3])
async def test_room_for_elsewhere_is_made_of_idle_ones(count: int, connectings: list[HandConnecting]) -> None:
    upstream = Upstream()
    for _ in range(count):
        upstream.connect()
    assert upstream.pool.close_one_idle(0.0)
    assert upstream.pool.open_count == count - 1
