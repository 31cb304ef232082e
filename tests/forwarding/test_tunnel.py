"""Each direction of a tunnel ends by itself, what was sent before an end arrives, and nothing keeps it for ever."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any, cast

import pytest

from sidecar.core.memory_budget import MemoryBudget
from sidecar.forwarding.tunnel import LINGER_SECONDS, Tunnel
from sidecar.transport.link import Link
from tests.support.by_hand import HandClient, HandLoop, HandTransport

IDLE = 10.0


class Side:
    """One end: what the tunnel writes to it, and whom its bytes go to."""

    def __init__(self, *, can_half_close: bool = True) -> None:
        self.transport = HandTransport(can_write_eof=can_half_close)
        self.link = Link(self.transport)

    def hand_over(self, protocol: Any) -> Link:
        self.link.set_sink(protocol)
        return self.link

    def says(self, data: bytes) -> None:
        self.transport.protocol.data_received(data)

    def ends(self) -> None:
        assert self.transport.protocol.eof_received() is True

    def is_lost(self, error: Exception | None = None) -> None:
        self.transport.protocol.connection_lost(error)

    @property
    def heard(self) -> bytes:
        return self.transport.written


class Client(HandClient):
    def __init__(self, side: Side, read_ahead: bytes, *, has_ended: bool) -> None:
        super().__init__()
        self._side, self._ahead = side, (read_ahead, has_ended)

    def hand_over(self, protocol: Any) -> tuple[Link, bytes, bool]:
        self._side.hand_over(protocol)
        return self._side.link, *self._ahead


class Stage:
    def __init__(
        self,
        *,
        rest: bytes = b"",
        read_ahead: bytes = b"",
        has_ended: bool = False,
        can_half_close: bool = True,
        idle_seconds: float = IDLE,
    ) -> None:
        self.loop = HandLoop()
        self.client, self.upstream = (Side(can_half_close=can_half_close) for _ in range(2))
        self.ends = 0
        self.memory = MemoryBudget()
        self.tunnel = Tunnel(
            cast(asyncio.AbstractEventLoop, self.loop), idle_seconds, self._ended, self.memory
        )
        client = Client(self.client, read_ahead, has_ended=has_ended)
        self.tunnel.start(client, self.upstream.hand_over, rest)

    def _ended(self) -> None:
        self.ends += 1

    def sides(self, first: str) -> tuple[Side, Side]:
        return (self.client, self.upstream) if first == "client" else (self.upstream, self.client)


BOTH = pytest.mark.parametrize("first", ["client", "upstream"])


def test_what_was_sent_ahead_goes_first() -> None:
    stage = Stage(rest=b"from upstream", read_ahead=b"from client")
    assert (stage.client.heard, stage.upstream.heard) == (b"from upstream", b"from client")
    assert (stage.tunnel.from_upstream_bytes, stage.ends) == (13, 0)


def test_a_client_that_had_ended_before_the_switch_still_gets_its_answer() -> None:
    stage = Stage(read_ahead=b"abc", has_ended=True)
    assert stage.upstream.heard == b"abc"
    assert stage.upstream.transport.has_ended_writing
    stage.upstream.says(b"answer")
    assert (stage.client.heard, stage.ends) == (b"answer", 0)


@BOTH
def test_one_sides_end_is_the_others_and_the_other_direction_goes_on(first: str) -> None:
    stage = Stage()
    one, other = stage.sides(first)
    one.says(b"abc")
    one.ends()
    assert (other.heard, other.transport.has_ended_writing) == (b"abc", True)
    assert not one.transport.has_ended_writing
    other.says(b"answer")
    assert (one.heard, stage.ends) == (b"answer", 0)
    other.ends()
    assert stage.ends == 1
    assert (one.transport.is_closing(), other.transport.is_closing()) == (True, True)
    assert (one.transport.is_aborted, other.transport.is_aborted) == (False, False)


@BOTH
def test_an_end_that_is_told_twice_is_one(first: str) -> None:
    stage = Stage()
    one, other = stage.sides(first)
    one.ends()
    one.ends()
    assert (other.transport.calls, stage.ends) == (["write_eof"], 0)


@BOTH
def test_where_a_side_cannot_half_close_an_end_closes_it(first: str) -> None:
    stage = Stage(can_half_close=False)
    one, other = stage.sides(first)
    one.ends()
    assert other.transport.calls == ["close"]


@BOTH
@pytest.mark.parametrize("error", [None, ConnectionResetError()])
def test_a_side_that_is_lost_ends_both_and_what_it_sent_is_delivered(
    first: str, error: Exception | None
) -> None:
    stage = Stage()
    one, other = stage.sides(first)
    one.says(b"last words")
    other.transport.unsent = 10
    one.is_lost(error)
    assert stage.ends == 1
    assert (other.heard, other.transport.has_ended_writing) == (b"last words", True)
    assert not other.transport.is_aborted
    other.says(b"to nobody")
    assert one.heard == b""
    assert stage.ends == 1


@BOTH
def test_who_takes_the_rest_is_given_time_for_it_and_who_does_not_is_cut(first: str) -> None:
    stage = Stage()
    one, other = stage.sides(first)
    other.transport.unsent = 1_000
    one.is_lost()
    look = min(IDLE, LINGER_SECONDS)
    for _ in range(5):
        other.transport.unsent -= 10
        stage.loop.advance(look)
        assert not other.transport.is_aborted
    stage.loop.advance(look)
    assert other.transport.is_aborted


@BOTH
def test_a_side_that_closes_by_itself_afterwards_is_let_go(first: str) -> None:
    stage = Stage()
    one, other = stage.sides(first)
    one.is_lost()
    other.transport.unsent = 10
    other.is_lost()
    calls = list(other.transport.calls)
    assert stage.loop.timers == 0, "a timer keeps both ends for half a minute"
    stage.loop.advance(100.0)
    assert (other.transport.calls, stage.ends, stage.loop.errors) == (calls, 1, [])


@BOTH
def test_a_side_that_takes_no_more_holds_the_other_back(first: str) -> None:
    stage = Stage()
    one, other = stage.sides(first)
    other.transport.protocol.pause_writing()
    assert (one.transport.is_paused, other.transport.is_paused) == (True, False)
    other.transport.protocol.resume_writing()
    assert not one.transport.is_paused


@BOTH
def test_a_quiet_tunnel_ends_on_time_and_each_byte_starts_the_clock_anew(first: str) -> None:
    stage = Stage()
    one, _ = stage.sides(first)
    for _ in range(3):
        stage.loop.advance(IDLE - 0.01)
        one.says(b".")
    stage.loop.advance(IDLE - 0.01)
    assert stage.ends == 0
    stage.loop.advance(0.02)
    assert stage.ends == 1


def test_a_half_closed_tunnel_that_is_quiet_ends_as_well() -> None:
    stage = Stage()
    stage.client.ends()
    stage.loop.advance(IDLE + 0.01)
    assert stage.ends == 1
    stage.loop.advance(IDLE + 0.01)
    assert stage.client.transport.is_aborted


def test_a_tunnel_without_an_idle_timeout_stays() -> None:
    stage = Stage(idle_seconds=inf)
    stage.loop.advance(1e6)
    assert (stage.ends, stage.loop.timers) == (0, 0)


def test_a_cut_ends_it_once_and_delivers_what_was_written() -> None:
    stage = Stage()
    stage.client.says(b"abc")
    stage.tunnel.cut()
    stage.tunnel.cut()
    stage.client.is_lost()
    assert (stage.ends, stage.upstream.heard) == (1, b"abc")
    assert stage.upstream.transport.has_ended_writing
    assert not stage.upstream.transport.is_aborted
