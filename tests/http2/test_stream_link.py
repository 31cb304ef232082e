"""A stream as one side of a tunnel: its ends, its back-pressure, and that each end is told once, and later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.http2 import events
from sidecar.http2.codec import Role
from sidecar.http2.outbox import HIGH_WATER_BYTES
from sidecar.http2.stream_link import StreamLink
from tests.http2.wire import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    RST_STREAM,
    WINDOW_UPDATE,
    Frame,
    block,
    frame,
    frames_of,
    headers,
    rst,
    started,
    window,
)

CONNECT = (
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "a"),
)
STREAM_WINDOW = 256 * 1024


class Sink:
    """What the tunnel hears of this side."""

    def __init__(self, *, keeps_on: bool) -> None:
        self.heard: list[Any] = []
        self._keeps_on = keeps_on

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)

    def eof_received(self) -> bool:
        self.heard.append("eof")
        return self._keeps_on

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.heard.append(("lost", error))


class Side:
    """A server's stream that was switched; the test is its client."""

    def __init__(self, *, keeps_on: bool = True, has_other_ended: bool = False) -> None:
        self.codec = started(Role.SERVER)
        flags = END_HEADERS | (END_STREAM if has_other_ended else 0)
        [event] = self.codec.receive(headers(1, block(*CONNECT), flags), 0.0)
        assert isinstance(event, events.RequestReceived)
        self.stream = event.stream
        self.codec.send_head(self.stream, 200, ())
        self.codec.take()
        self.later: list[Callable[[], None]] = []
        self.closed = 0
        self.sink = Sink(keeps_on=keeps_on)
        self.link = StreamLink(
            self.codec,
            self.stream,
            write_soon=lambda: None,
            call_soon=lambda callback, *given: self.later.append(lambda: callback(*given)),
            on_closed=self._closed,
            has_other_ended=has_other_ended,
        )
        self.link.set_sink(self.sink)

    def _closed(self) -> None:
        self.closed += 1

    def says(self, *given: bytes) -> None:
        """What the client sends, told on as a connection does."""
        for event in self.codec.receive(b"".join(given), 0.0):
            if isinstance(event, events.DataReceived):
                self.link.received(event.data, is_end=event.is_end)
            elif isinstance(event, events.TrailersReceived):
                self.link.ended()
            elif isinstance(event, events.StreamReset):
                self.link.gone(ConnectionResetError(event.detail))
            elif isinstance(event, events.StreamWritable):
                self.link.writable()
            elif isinstance(event, events.StreamSent):
                self.link.sent()

    def hears(self) -> list[tuple[int, int, bytes]]:
        """(kind, flags, payload) of what the client gets now."""
        return [(one.kind, one.flags, one.payload) for one in self.frames()]

    def frames(self) -> list[Frame]:
        return frames_of(self.codec.take())

    def told(self) -> list[Any]:
        """What the sink hears in the next turn."""
        before = len(self.sink.heard)
        for callback in self.later:
            callback()
        self.later.clear()
        return self.sink.heard[before:]


END = (DATA, END_STREAM, b"")
CANCELLED = (RST_STREAM, 0, CANCEL.to_bytes(4, "big"))


@pytest.mark.parametrize("first", ["we", "the client"])
def test_each_direction_ends_by_itself_and_the_second_end_is_the_last(first: str) -> None:
    side = Side()
    if first == "we":
        side.link.end_writing()
        assert side.hears() == [END]
        side.says(frame(DATA, 0, 1, b"more"))
        assert (side.sink.heard, side.closed) == ([b"more"], 0)
        side.says(frame(DATA, END_STREAM, 1, b"last"))
        assert side.sink.heard == [b"more", b"last", "eof"]
    else:
        side.says(frame(DATA, END_STREAM, 1, b"last"))
        side.link.write(b"more")
        assert (side.hears(), side.closed) == ([(DATA, 0, b"more")], 0)
        side.link.end_writing()
        assert side.hears() == [END]
    assert (side.closed, side.link.is_over, side.link.is_lost) == (1, True, False)
    assert side.told() == [("lost", None)]


def test_trailers_end_a_direction_too() -> None:
    side = Side()
    side.says(headers(1, block(("x-end", "1"))))
    assert (side.sink.heard, side.closed) == (["eof"], 0)


def test_a_client_that_had_ended_already_is_not_told_of_again() -> None:
    side = Side(has_other_ended=True)
    side.link.write(b"answer")
    side.link.close()
    assert side.hears() == [(DATA, END_STREAM, b"answer")]
    assert (side.closed, side.told()) == (1, [("lost", None)])


def test_who_listens_to_nothing_more_ends_with_the_client() -> None:
    side = Side(keeps_on=False)
    side.says(frame(DATA, END_STREAM, 1))
    assert (side.hears(), side.closed) == ([END], 1)


def test_a_full_window_holds_the_writer_until_it_opens() -> None:
    side = Side()
    side.link.write(bytes(65_535 + HIGH_WATER_BYTES - 1))
    assert side.sink.heard == []
    side.link.write(b"x")
    side.link.write(b"y")
    assert side.sink.heard == ["pause"]
    assert side.link.untaken_bytes() == HIGH_WATER_BYTES + 1
    side.says(window(0, 100_000), window(1, 100_000))
    assert side.sink.heard == ["pause", "resume"]
    assert sum(len(one.payload) for one in side.frames()) == 65_535 + HIGH_WATER_BYTES + 1


def test_a_held_side_gets_no_credit_until_it_goes_on() -> None:
    side = Side()
    side.link.pause()
    for _ in range(STREAM_WINDOW // 16_384):
        side.says(frame(DATA, 0, 1, bytes(16_384)))
    assert side.frames() == []
    side.link.resume()
    [credit] = side.frames()
    assert (credit.kind, credit.stream_id) == (WINDOW_UPDATE, 1)
    assert int.from_bytes(credit.payload, "big") == STREAM_WINDOW


def test_what_is_broken_off_with_nothing_on_its_way_is_cancelled_at_once() -> None:
    side = Side()
    side.link.write(b"last")
    side.link.break_off()
    assert side.hears() == [(DATA, 0, b"last"), CANCELLED]
    assert (side.closed, side.told()) == (1, [("lost", None)])


def test_what_is_broken_off_is_cancelled_once_all_has_gone_out() -> None:
    side = Side()
    side.link.write(bytes(70_000))
    side.link.break_off()
    assert sum(len(one.payload) for one in side.frames()) == 65_535
    side.link.write(b"nobody")
    assert side.closed == 0
    side.says(window(0, 100_000), window(1, 100_000))
    found = side.hears()
    assert sum(len(payload) for kind, _, payload in found if kind == DATA) == 70_000 - 65_535
    assert found[-1] == CANCELLED
    assert side.closed == 1


@pytest.mark.parametrize("how", ["reset", "abort"])
def test_a_stream_that_is_gone_is_told_once_and_later(how: str) -> None:
    side = Side()
    side.link.write(bytes(70_000))
    if how == "reset":
        side.says(rst(1))
    else:
        side.link.abort()
        assert side.hears()[-1] == CANCELLED
    side.frames()
    assert (side.closed, side.sink.heard) == (1, [])
    side.link.gone(None)
    side.link.abort()
    side.link.break_off()
    side.link.write(b"late")
    side.link.resume()
    [(what, error)] = side.told()
    assert (what, isinstance(error, ConnectionResetError)) == ("lost", how == "reset")
    assert (side.closed, side.frames()) == (1, [])


def test_after_an_abort_nothing_is_passed_on() -> None:
    side = Side()
    side.link.abort()
    side.link.received(b"late", is_end=True)
    assert side.sink.heard == []
