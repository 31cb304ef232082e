"""The streams of one connection: which are open, which were, and which may still begin (RFC 9113 5.1).

A stream counts as open until nobody works on it any more and nothing of it waits, whatever its peer has done
meanwhile. Of those that were reset, the last ones are remembered: what their peer had sent before it knew is no
fault.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from sidecar.http2.codec import CodecLoad
from sidecar.http2.stream import Http2Stream, Receiving, Sending

MAX_REMEMBERED: Final = 1000
"""Streams that were reset; of those before, it is assumed that we have reset them."""
MAX_STREAM_ID: Final = 2**31 - 1
_TO_RECEIVE: Final = Receiving.HEAD
"""Read from here in the hot path, as the next: an enum's own lookup costs 15 to 50 ns each time."""
_TO_SEND: Final = Sending.HEAD
STREAMS_BEFORE_SETTINGS: Final = 100
"""That a client opens before it knows the server's limit (RFC 9113 6.5.2 says that it is rarely less)."""


class Was(Enum):
    """What became of a stream that is not open."""

    IDLE = auto()
    """It has not begun."""
    ENDED = auto()
    """Both sides have ended it."""
    RESET_BY_US = auto()
    RESET_BY_PEER = auto()


class Streams:
    """`live` are those in which something may still go; a client opens odd ids, and nobody opens even ones."""

    __slots__ = (
        "_before", "_gone", "_load", "goaway_received", "goaway_sent", "is_server", "last_id", "live", "most",
    )  # fmt: skip

    def __init__(self, load: CodecLoad, *, is_server: bool) -> None:
        """Those that are not released, or of which something waits still, are counted in `load`."""
        self._load = load
        self.is_server = is_server
        self.most = 0 if is_server else STREAMS_BEFORE_SETTINGS
        """That a client may have open at once; 0 once none may be opened any more."""
        self.live: dict[int, Http2Stream] = {}
        self.last_id = 0
        """The last one that the client has begun; all below have begun, or never will."""
        self.goaway_sent = MAX_STREAM_ID
        """Streams above are not taken."""
        self.goaway_received = MAX_STREAM_ID
        """The peer takes none above."""
        self._gone: dict[int, Was] = {}
        self._before = 0
        """The last one that is not remembered any more."""

    @property
    def begun(self) -> int:
        """How many so far, those included that were passed over."""
        return (self.last_id + 1) >> 1

    def allow(self, most: int) -> None:
        """The peer's SETTINGS allow so many at once."""
        if not (self._load.is_draining or self.is_server):
            self.most = most

    def open_no_more(self) -> None:
        """Either side has said GOAWAY, or the connection has failed."""
        self.most = 0

    def begin(self, stream_id: int, send_window: int, receive_window: int) -> Http2Stream:
        self.last_id = stream_id
        stream = self.live[stream_id] = Http2Stream()
        stream.stream_id = stream_id
        stream.owner = None
        stream.receiving = _TO_RECEIVE
        stream.sending = _TO_SEND
        stream.send_window = send_window
        stream.receive_window = receive_window
        stream.credit = 0
        stream.interims = 0
        stream.is_released = False
        stream.is_blocked = False
        stream.unsent = None
        stream.unsent_bytes = 0
        stream.trailers = None
        stream.reset_after = None
        self._load.open_streams += 1
        return stream

    def end(self, stream: Http2Stream) -> None:
        """Both sides have ended it."""
        if self.live.pop(stream.stream_id, None) is not None and stream.is_released:
            self._load.open_streams -= 1

    def forget_reset(self, stream: Http2Stream, was: Was) -> None:
        self.end(stream)
        self.remember(stream.stream_id, was)

    def remember(self, stream_id: int, was: Was) -> None:
        if len(self._gone) >= MAX_REMEMBERED:
            first = next(iter(self._gone))
            del self._gone[first]
            self._before = max(self._before, first)
        self._gone[stream_id] = was

    def release(self, stream: Http2Stream) -> None:
        """Nobody works on it any more."""
        if not stream.is_released:
            stream.is_released = True
            if stream.stream_id not in self.live:
                self._load.open_streams -= 1

    def what_became_of(self, stream_id: int) -> Was:
        """Of one that is not live."""
        if stream_id > self.last_id or not stream_id & 1:
            return Was.IDLE
        was = self._gone.get(stream_id)
        if was is None:
            return Was.RESET_BY_US if stream_id <= self._before else Was.ENDED
        return was
