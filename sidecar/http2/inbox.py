"""What comes in: bytes → frames, and whole header blocks (RFC 9113 3.4, 4, 6.10).

The loop over frames is one method. DATA and HEADERS are nearly all that comes, and go to `Arrivals` like everything
that is about a message; what is about the connection goes to `Control`.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from sidecar.http2 import frames
from sidecar.http2.arrivals import Arrivals
from sidecar.http2.control import Control
from sidecar.http2.errors import StreamFault, frame_size_error, protocol_error
from sidecar.http2.events import Http2Event
from sidecar.http2.floods import Floods
from sidecar.http2.frames import HEADER_BYTES, MAX_BYTES, unpack_header
from sidecar.http2.messages import malformed
from sidecar.http2.preface import PREFACE
from sidecar.http2.settings import Http2Settings
from sidecar.http2.streams import MAX_STREAM_ID, Streams


class Expecting(Enum):
    """What may come next."""

    PREFACE = auto()
    SETTINGS = auto()
    """The first frame (RFC 9113 3.4)."""
    FRAME = auto()
    CONTINUATION = auto()
    """And of one stream alone (RFC 9113 6.10)."""


# Read from module globals in the hot path: an enum's own lookup costs 15 to 50 ns each time.
_PREFACE: Final = Expecting.PREFACE
_FRAME: Final = Expecting.FRAME
_TOO_LONG: Final = (MAX_BYTES + 1) << 8
"""Of a frame's length and kind, read as one number."""
_DATA: Final = frames.DATA
_HEADERS: Final = frames.HEADERS
_WHOLE: Final = frames.END_HEADERS
_FORM: Final = frames.END_HEADERS | frames.PADDED | frames.HAS_PRIORITY
"""Flags of HEADERS that are `_WHOLE` alone where its payload is a header block and nothing else."""


class UnfinishedBlock:
    """A header block that goes on in CONTINUATION."""

    __slots__ = ("count", "fault", "flags", "parts", "stream_id")

    def __init__(self, stream_id: int, part: bytes, flags: int, fault: StreamFault | None) -> None:
        self.stream_id = stream_id
        self.flags = flags
        self.fault = fault
        self.parts = [part]
        self.count = 0
        """CONTINUATION frames so far."""


class Inbox:
    """Of one connection."""

    __slots__ = (
        "_arrivals", "_block", "_buffer", "_control", "_expecting", "_floods", "_load",
        "_max_continuations", "_needed", "_streams", "_table_bytes",
    )  # fmt: skip

    def __init__(
        self, settings: Http2Settings, streams: Streams, floods: Floods, control: Control, arrivals: Arrivals
    ) -> None:
        self._max_continuations = settings.max_continuations
        self._table_bytes = settings.header_table_bytes
        self._streams = streams
        self._floods = floods
        self._control = control
        self._load = control.outbox.load
        self._arrivals = arrivals
        self._expecting = Expecting.PREFACE if streams.is_server else Expecting.SETTINGS
        self._buffer = bytearray()
        """The beginning of a frame."""
        self._needed = 0
        """Bytes that it takes to go on; at most a frame's."""
        self._block: UnfinishedBlock | None = None

    def receive(self, data: bytes, events: list[Http2Event], now: float) -> None:
        """Raises: ConnectionFault."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        arrivals, load = self._arrivals, self._load
        arrivals.now = now
        arrivals.events = events
        start = HEADER_BYTES  # of the payload of the next frame
        if self._expecting is _PREFACE:
            if not self._take_preface(data):
                return
            start += len(PREFACE)
        size = len(data)
        while start <= size:
            length_and_kind, flags, stream_id = unpack_header(data, start - HEADER_BYTES)
            kind = length_and_kind & 0xFF
            end = start + (length_and_kind >> 8)
            if length_and_kind >= _TOO_LONG:
                raise frame_size_error(f"a frame of {length_and_kind >> 8} bytes")
            if end > size:
                self._keep(data[start - HEADER_BYTES :], end - start + HEADER_BYTES)
                return
            load.frames += 1
            payload = data[start:end]
            start = end + HEADER_BYTES
            stream_id &= MAX_STREAM_ID
            try:
                if self._expecting is not _FRAME:
                    self._take_expected(kind, flags, stream_id, payload)
                elif kind == _DATA:
                    arrivals.take_data(flags, stream_id, payload)
                elif kind == _HEADERS:
                    if flags & _FORM == _WHOLE and stream_id:
                        arrivals.take_block(stream_id, payload, flags, None)
                    else:
                        self._take_headers(flags, stream_id, payload)
                else:
                    self._take_other(kind, flags, stream_id, payload)
            except StreamFault as fault:
                arrivals.end_stream(stream_id, fault)
        if start - HEADER_BYTES < size:
            self._keep(data[start - HEADER_BYTES :], HEADER_BYTES)

    def _take_preface(self, data: bytes) -> bool:
        begin = data[: len(PREFACE)]
        if not PREFACE.startswith(begin):
            raise protocol_error("the connection does not begin with HTTP/2's preface")
        if len(begin) < len(PREFACE):
            self._keep(data, len(begin) + 1)
            return False
        self._expecting = Expecting.SETTINGS
        return True

    def _keep(self, data: bytes, needed: int) -> None:
        self._buffer += data
        self._needed = needed

    def _take_expected(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._expecting is Expecting.SETTINGS:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise protocol_error("the first frame is no SETTINGS")
            self._expecting = Expecting.FRAME
            self._take_other(kind, flags, stream_id, payload)
            return
        block = self._block
        if block is None or kind != frames.CONTINUATION or stream_id != block.stream_id:
            raise protocol_error("another frame in the middle of a header block")
        block.count += 1
        self._floods.continuation(block.count, self._max_continuations)
        block.parts.append(payload)
        if flags & frames.END_HEADERS:
            self._block = None
            self._expecting = Expecting.FRAME
            self._arrivals.take_block(stream_id, b"".join(block.parts), block.flags, block.fault)

    def _take_other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        control, events, now = self._control, self._arrivals.events, self._arrivals.now
        if kind == frames.WINDOW_UPDATE:
            control.take_window_update(stream_id, payload, events)
        elif kind == frames.RST_STREAM:
            self._arrivals.take_reset(stream_id, payload)
        elif kind == frames.PRIORITY:
            control.take_priority(stream_id, payload)
        elif kind in (frames.SETTINGS, frames.PING, frames.GOAWAY):
            if stream_id:
                raise protocol_error("a frame about the connection on a stream")
            if kind == frames.SETTINGS:
                control.take_settings(flags, payload, events, now)
                if flags & frames.ACK:
                    self._arrivals.heads.set_table_bytes(self._table_bytes)
            elif kind == frames.PING:
                control.take_ping(flags, payload, events, now)
            else:
                control.take_goaway(payload, events)
        elif kind in (frames.PUSH_PROMISE, frames.CONTINUATION):
            raise protocol_error("PUSH_PROMISE, or CONTINUATION of no header block")
        else:
            self._floods.unknown(self._streams.begun)

    # HEADERS

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise protocol_error("HEADERS for stream 0")
        fault = None
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            if flags & frames.PADDED:
                payload = frames.without_padding(payload, 5 if flags & frames.HAS_PRIORITY else 0)
            if flags & frames.HAS_PRIORITY:
                if len(payload) < 5:
                    raise frame_size_error("HEADERS that is too short for its priority")
                if frames.unpack_long(payload, 0)[0] & MAX_STREAM_ID == stream_id:
                    fault = malformed("a stream that depends on itself")
                payload = payload[5:]
        if flags & frames.END_HEADERS:
            self._arrivals.take_block(stream_id, payload, flags, fault)
        else:
            self._block = UnfinishedBlock(stream_id, payload, flags, fault)
            self._expecting = Expecting.CONTINUATION
