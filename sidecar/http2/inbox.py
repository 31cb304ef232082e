"""What comes in: bytes → frames → events, and what each frame of a message may do in which state (RFC 9113 5 and 8).

It is the one writer of a stream's `receiving`, but for resets (`Control.reset`). The loop over frames is one
method, and reads DATA and HEADERS by their own: they are nearly all that comes.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from sidecar.http2 import frames
from sidecar.http2.codec import PREFACE
from sidecar.http2.control import Control, frame_size_error, protocol_error
from sidecar.http2.errors import ConnectionFault, ErrorCode, HeadTooLarge, StreamFault
from sidecar.http2.events import (
    NONE_INDEXED,
    DataReceived,
    Http2Event,
    InterimReceived,
    RequestMalformed,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from sidecar.http2.floods import Floods
from sidecar.http2.frames import HEADER_BYTES, MAX_BYTES, unpack_header
from sidecar.http2.heads import Heads
from sidecar.http2.hpack_encoder import STATUS_PAIRS
from sidecar.http2.messages import malformed
from sidecar.http2.outbox import Outbox
from sidecar.http2.settings import Http2Settings
from sidecar.http2.stream import Http2Stream, Receiving, Sending
from sidecar.http2.streams import MAX_STREAM_ID, Streams, Was

MAX_INTERIMS: Final = 32
"""1xx before an answer's final head."""

_HEAD = Receiving.HEAD
_BODY = Receiving.BODY
_ENDED = Receiving.ENDED
_SENT = Sending.ENDED
_BODYLESS: Final = frozenset({204, 304})
_TOO_LARGE: Final = ((b"content-length", b"0"),)


class Expecting(Enum):
    """What may come next."""

    PREFACE = auto()
    SETTINGS = auto()
    """The first frame (RFC 9113 3.4)."""
    FRAME = auto()
    CONTINUATION = auto()
    """And of one stream alone (RFC 9113 6.10)."""


class UnfinishedBlock:
    """A header block that goes on in CONTINUATION."""

    __slots__ = ("count", "fault", "is_end", "parts", "stream_id")

    def __init__(self, stream_id: int, part: bytes, fault: StreamFault | None, *, is_end: bool) -> None:
        self.stream_id = stream_id
        self.is_end = is_end
        self.fault = fault
        self.parts = [part]
        self.count = 0
        """CONTINUATION frames so far."""


class Inbox:
    """Of one connection."""

    __slots__ = (
        "_block", "_buffer", "_control", "_events", "_expecting", "_floods", "_is_server", "_needed", "_now",
        "_outbox", "_settings", "_streams", "credit", "heads", "stream_window", "window",
    )  # fmt: skip

    def __init__(
        self, settings: Http2Settings, streams: Streams, outbox: Outbox, floods: Floods, control: Control
    ):
        self._settings = settings
        self._streams = streams
        self._outbox = outbox
        self._floods = floods
        self._control = control
        self._is_server = streams.is_server
        self._expecting = Expecting.PREFACE if streams.is_server else Expecting.SETTINGS
        self._buffer = bytearray()
        """The beginning of a frame."""
        self._needed = 0
        """Bytes that it takes to go on; at most a frame's."""
        self._block: UnfinishedBlock | None = None
        self._now = 0.0
        self._events: list[Http2Event] = []
        self.stream_window = settings.stream_window
        """Bytes that the peer may send on each stream, at its beginning."""
        self.heads = Heads(settings.max_header_list_bytes)
        self.window = settings.connection_window
        """Bytes that the peer may send on the connection."""
        self.credit = 0
        """Given by the owner, and not told the peer yet."""

    def receive(self, data: bytes, events: list[Http2Event], now: float) -> None:
        """Raises: ConnectionFault."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        self._now = now
        self._events = events
        position = 0
        if self._expecting is Expecting.PREFACE:
            if not self._take_preface(data):
                return
            position = len(PREFACE)
        self._read(data, position)

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

    def _read(self, data: bytes, position: int) -> None:
        size = len(data)
        while size - position >= HEADER_BYTES:
            high, low, kind, flags, stream_id = unpack_header(data, position)
            length = high << 8 | low
            if length > MAX_BYTES:
                raise frame_size_error(f"a frame of {length} bytes")
            start = position + HEADER_BYTES
            position = start + length
            if position > size:
                self._keep(data[start - HEADER_BYTES :], HEADER_BYTES + length)
                return
            stream_id &= MAX_STREAM_ID
            payload = data[start:position]
            try:
                if self._expecting is not Expecting.FRAME:
                    self._take_expected(kind, flags, stream_id, payload)
                elif kind == frames.DATA:
                    self._take_data(flags, stream_id, payload)
                elif kind == frames.HEADERS:
                    self._take_headers(flags, stream_id, payload)
                else:
                    self._take_other(kind, flags, stream_id, payload)
            except StreamFault as fault:
                self._end_stream(stream_id, fault)
        if position < size:
            self._keep(data[position:], HEADER_BYTES)

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
        self._floods.continuation(block.count, self._settings.max_continuations)
        block.parts.append(payload)
        if flags & frames.END_HEADERS:
            self._block = None
            self._expecting = Expecting.FRAME
            self._take_block(stream_id, b"".join(block.parts), block.fault, is_end=block.is_end)

    def _take_other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        control = self._control
        if kind == frames.WINDOW_UPDATE:
            control.take_window_update(stream_id, payload, self._events)
        elif kind == frames.RST_STREAM:
            self._take_reset(stream_id, payload)
        elif kind == frames.PRIORITY:
            control.take_priority(stream_id, payload)
        elif kind in (frames.SETTINGS, frames.PING, frames.GOAWAY):
            if stream_id:
                raise protocol_error("a frame about the connection on a stream")
            if kind == frames.SETTINGS:
                control.take_settings(flags, payload, self._events, self._now)
                if flags & frames.ACK:
                    self.heads.set_table_bytes(self._settings.header_table_bytes)
            elif kind == frames.PING:
                control.take_ping(flags, payload, self._events, self._now)
            else:
                control.take_goaway(payload, self._events)
        elif kind in (frames.PUSH_PROMISE, frames.CONTINUATION):
            raise protocol_error("PUSH_PROMISE, or CONTINUATION of no header block")
        else:
            self._floods.unknown(self._streams.begun)

    # DATA

    def _take_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        length = len(payload)
        self.window -= length
        if self.window < 0:
            raise ConnectionFault(
                ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window allows"
            )
        stream = self._streams.live.get(stream_id)
        if stream is None or stream.receiving is not _BODY:
            self._take_stray_data(stream_id, stream, length)
            return
        data = payload if not flags & frames.PADDED else _without_padding(payload, 0)
        size = len(data)
        is_end = flags & frames.END_STREAM != 0
        stream.receive_window -= length
        left = stream.left
        if left is not None:
            left -= size
            stream.left = left
            if left < 0 or (is_end and left):
                self.give_credit(length)
                raise malformed("DATA is not as long as content-length says")
        if stream.receive_window < 0:
            self.give_credit(length)
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window allows")
        if size or is_end:
            self._floods.full_data()
        else:
            self._floods.empty_data()
        if size < length:
            self.give_credit(length - size)
            self.give_stream_credit(stream, length - size)
        self._events.append(DataReceived(stream, data, is_end))
        if is_end:
            self._end(stream)

    def _take_stray_data(self, stream_id: int, stream: Http2Stream | None, length: int) -> None:
        """DATA for a stream that expects none."""
        if not stream_id:
            raise protocol_error("DATA for stream 0")
        was = Was.RESET_BY_PEER if stream is not None else self._streams.what_became_of(stream_id)
        if was is Was.IDLE:
            raise protocol_error("DATA for a stream that has not begun")
        if was is Was.ENDED:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "DATA for a stream that is over")
        self.give_credit(length)
        if stream is not None and stream.receiving is _HEAD:
            raise malformed("DATA before the head")
        if was is Was.RESET_BY_PEER:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA for a stream that its sender has ended")

    def _end(self, stream: Http2Stream) -> None:
        stream.receiving = _ENDED
        if stream.sending is _SENT:
            self._streams.end(stream)

    def give_credit(self, size: int) -> None:
        """Of the connection. WINDOW_UPDATE goes when half of the window is there, since each costs both sides."""
        self.credit += size
        if self.credit * 2 >= self._settings.connection_window:
            self._outbox.control(frames.window_update(0, self.credit))
            self.window += self.credit
            self.credit = 0

    def give_stream_credit(self, stream: Http2Stream, size: int) -> None:
        if stream.receiving is not _BODY:
            return
        stream.credit += size
        if stream.credit * 2 >= self._settings.stream_window:
            self._outbox.control(frames.window_update(stream.stream_id, stream.credit))
            stream.receive_window += stream.credit
            stream.credit = 0

    # HEADERS

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise protocol_error("HEADERS for stream 0")
        fault = None
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            if flags & frames.PADDED:
                payload = _without_padding(payload, 5 if flags & frames.HAS_PRIORITY else 0)
            if flags & frames.HAS_PRIORITY:
                if len(payload) < 5:
                    raise frame_size_error("HEADERS that is too short for its priority")
                if frames.unpack_long(payload, 0)[0] & MAX_STREAM_ID == stream_id:
                    fault = malformed("a stream that depends on itself")
                payload = payload[5:]
        is_end = flags & frames.END_STREAM != 0
        if flags & frames.END_HEADERS:
            self._take_block(stream_id, payload, fault, is_end=is_end)
        else:
            self._block = UnfinishedBlock(stream_id, payload, fault, is_end=is_end)
            self._expecting = Expecting.CONTINUATION

    def _take_block(self, stream_id: int, block: bytes, fault: StreamFault | None, *, is_end: bool) -> None:
        """A whole header block. Whoever it is for, the table follows it."""
        self._floods.full_data()
        stream = self._streams.live.get(stream_id)
        if stream is None:
            if self._is_server and stream_id > self._streams.last_id and stream_id & 1:
                self._begin_request(stream_id, block, fault, is_end=is_end)
            else:
                self._take_stray_block(stream_id, block)
        elif fault is not None:
            self.heads.skip(block)
            raise fault
        elif stream.receiving is _BODY:
            self._take_trailers(stream, block, is_end=is_end)
        elif stream.receiving is _HEAD:
            self._take_answer(stream, block, is_end=is_end)
        else:
            self.heads.skip(block)
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS for a stream that its sender has ended")

    def _take_stray_block(self, stream_id: int, block: bytes) -> None:
        was = self._streams.what_became_of(stream_id)
        if was is Was.IDLE:
            raise protocol_error("HEADERS for a stream that cannot begin so")
        self.heads.skip(block)
        if was is Was.ENDED:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS for a stream that is over")
        if was is Was.RESET_BY_PEER:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS for a stream that its sender has reset")

    def _begin_request(
        self, stream_id: int, block: bytes, fault: StreamFault | None, *, is_end: bool
    ) -> None:
        streams = self._streams
        streams.last_id = stream_id
        if stream_id > streams.goaway_sent:
            streams.remember(stream_id, Was.RESET_BY_US)
            self.heads.skip(block)
            return
        try:
            head = self.heads.read_request(block)
        except HeadTooLarge as error:
            self._answer_too_large(stream_id, error, is_end=is_end)
            return
        if fault is not None:
            raise fault
        if head.length and is_end:
            raise malformed("no DATA, though content-length says so")
        if streams.open_count >= self._settings.max_concurrent_streams:
            raise StreamFault(ErrorCode.REFUSED_STREAM, "too many streams at once")
        stream = streams.begin(stream_id, self._control.peer.stream_window, self.stream_window)
        stream.left = head.length
        stream.receiving = _ENDED if is_end else _BODY
        event = RequestReceived()
        event.stream = stream
        event.method = head.method
        event.scheme = head.scheme
        event.authority = head.authority
        event.path = head.path
        event.protocol = head.protocol
        event.fields = head.fields
        event.lookup = head.lookup
        event.never_indexed = head.never_indexed
        event.length = head.length
        event.is_end = is_end
        self._events.append(event)

    def _answer_too_large(self, stream_id: int, fault: StreamFault, *, is_end: bool) -> None:
        """431, which says more than a reset (RFC 6585 5)."""
        outbox = self._outbox
        self._floods.reset(self._now)
        pseudo = (STATUS_PAIRS[431],)
        block = outbox.encoder.encode(pseudo, (), NONE_INDEXED, _TOO_LARGE, NONE_INDEXED)
        outbox.block(stream_id, block, is_end=True)
        if not is_end:
            outbox.control(frames.rst_stream(stream_id, ErrorCode.NO_ERROR))
            self._streams.remember(stream_id, Was.RESET_BY_US)
        self._events.append(RequestMalformed(stream_id, fault.code, fault.detail))

    def _take_answer(self, stream: Http2Stream, block: bytes, *, is_end: bool) -> None:
        head = self.heads.read_response(block)
        status = head.status
        if status < 200:
            self._take_interim(stream, is_end=is_end)
            interim = InterimReceived()
            interim.stream = stream
            interim.status = status
            interim.fields = head.fields
            interim.never_indexed = head.never_indexed
            self._events.append(interim)
            return
        left = head.length
        if stream.method == b"HEAD" or status in _BODYLESS:
            left = 0
        elif stream.method == b"CONNECT" and status < 300:
            left = None
        if is_end and left:
            raise malformed("no DATA, though content-length says so")
        stream.left = left
        event = ResponseReceived()
        event.stream = stream
        event.status = status
        event.fields = head.fields
        event.lookup = head.lookup
        event.never_indexed = head.never_indexed
        event.length = head.length
        event.is_end = is_end
        self._events.append(event)
        if is_end:
            self._end(stream)
        else:
            stream.receiving = _BODY

    def _take_interim(self, stream: Http2Stream, *, is_end: bool) -> None:
        stream.interims += 1
        if is_end:
            raise malformed("an interim answer that is the last one")
        if stream.interims > MAX_INTERIMS:
            raise StreamFault(ErrorCode.ENHANCE_YOUR_CALM, "too many interim answers")

    def _take_trailers(self, stream: Http2Stream, block: bytes, *, is_end: bool) -> None:
        fields, never_indexed = self.heads.read_trailers(block)
        if not is_end:
            raise malformed("HEADERS in the middle of a body")
        if stream.left:
            raise malformed("DATA is not as long as content-length says")
        self._events.append(TrailersReceived(stream, fields, never_indexed))
        self._end(stream)

    # RST_STREAM

    def _take_reset(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise frame_size_error("the size of RST_STREAM is not 4")
        stream = self._streams.live.get(stream_id)
        if stream is None and self._streams.what_became_of(stream_id) is Was.IDLE:
            raise protocol_error("RST_STREAM for a stream that has not begun")
        if self._is_server or stream is None:  # an upstream's reset of a request of ours costs us no work
            self._floods.reset(self._now)
        if stream is None:
            return
        code = frames.unpack_long(payload, 0)[0]
        is_unprocessed = (
            code == ErrorCode.REFUSED_STREAM and not self._is_server and stream.receiving is _HEAD
        )
        self._outbox.drop(stream)
        stream.receiving = Receiving.RESET
        self._streams.forget_reset(stream, Was.RESET_BY_PEER)
        detail = f"the peer has reset the stream: {_name(code)}"
        self._events.append(StreamReset(stream, code, detail, is_by_peer=True, is_unprocessed=is_unprocessed))

    def _end_stream(self, stream_id: int, fault: StreamFault) -> None:
        """By RST_STREAM, for what the peer sent. Each costs it a token: else it could make us reset
        (CVE-2025-8671)."""
        stream = self._streams.live.get(stream_id)
        if stream is not None:
            self._control.reset(stream, fault.code)
            self._events.append(StreamReset(stream, fault.code, fault.detail, is_by_peer=False))
        else:
            is_new = self._streams.what_became_of(stream_id) is Was.ENDED
            self._outbox.control(frames.rst_stream(stream_id, fault.code))
            self._streams.remember(stream_id, Was.RESET_BY_US)
            if is_new and self._is_server:
                self._events.append(RequestMalformed(stream_id, fault.code, fault.detail))
        if self._is_server:
            self._floods.reset(self._now)


def _name(code: int) -> str:
    return ErrorCode(code).name if code in _CODES else hex(code)


_CODES: Final = frozenset(int(code) for code in ErrorCode)


def _without_padding(payload: bytes, least: int) -> bytes:
    """The payload without the length of its padding and the padding; at least `least` bytes are left before it."""
    padding = payload[0] if payload else 0
    if not payload or padding + 1 + least > len(payload):
        raise protocol_error("padding that is longer than its frame")
    return payload[1 : len(payload) - padding]
