"""What comes in on streams: which part of a message each DATA, HEADERS and RST_STREAM is (RFC 9113 5.1 and 8.1).

The one writer of a stream's `receiving`, but for resets and GOAWAY (`Control`). It gets whole frames and whole header
blocks from `Inbox`, and adds events to `events`.
"""

from __future__ import annotations

from typing import Final

from sidecar.http2 import frames
from sidecar.http2.control import Control
from sidecar.http2.credit import Credit
from sidecar.http2.errors import (
    ConnectionFault,
    ErrorCode,
    HeadTooLarge,
    StreamFault,
    frame_size_error,
    protocol_error,
)
from sidecar.http2.events import (
    NONE_INDEXED,
    DataReceived,
    Http2Event,
    InterimReceived,
    RequestMalformed,
    RequestReceived,
    RequestTooLarge,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from sidecar.http2.floods import Floods
from sidecar.http2.heads import Heads
from sidecar.http2.messages import malformed
from sidecar.http2.outbox import Outbox
from sidecar.http2.settings import Http2Settings
from sidecar.http2.stream import Http2Stream, Receiving, Sending
from sidecar.http2.streams import Streams, Was

MAX_INTERIMS: Final = 32
"""1xx before an answer's final head."""

_HEAD: Final = Receiving.HEAD
_BODY: Final = Receiving.BODY
_ENDED: Final = Receiving.ENDED
_SENT: Final = Sending.ENDED
_END_STREAM: Final = frames.END_STREAM
_PADDED: Final = frames.PADDED
_BODYLESS: Final = frozenset({204, 304})


class Arrivals:
    """Of one connection."""

    __slots__ = (
        "_control", "_credit", "_floods", "_is_server", "_max_streams", "_outbox", "_streams", "events", "heads",
        "now",
    )  # fmt: skip

    def __init__(
        self,
        settings: Http2Settings,
        streams: Streams,
        outbox: Outbox,
        floods: Floods,
        control: Control,
        credit: Credit,
    ) -> None:
        self._max_streams = settings.max_concurrent_streams
        self._streams = streams
        self._outbox = outbox
        self._floods = floods
        self._control = control
        self._credit = credit
        self._is_server = streams.is_server
        self.heads = Heads(settings.max_header_list_bytes)
        self.events: list[Http2Event] = []
        """Of the read that is under way."""
        self.now = 0.0

    # DATA

    def take_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = length = len(payload)
        stream = self._streams.live.get(stream_id)
        if stream is None or stream.receiving is not _BODY:
            self._credit.spend(length)
            self._take_stray_data(stream_id, stream, length)
            return
        data = payload
        if flags & _PADDED:
            data = frames.without_padding(payload, 0)
            size = len(data)
        is_end = flags & _END_STREAM != 0
        credit = self._credit
        credit.window -= length
        stream.receive_window -= length
        if credit.window < 0 or stream.receive_window < 0:
            credit.overspent(length)
        left = stream.left
        if left is not None:
            left -= size
            stream.left = left
            if left < 0 or (is_end and left):
                credit.give(length)
                raise malformed("DATA is not as long as content-length says")
        if not size and not is_end:
            self._floods.empty_data()
        elif self._floods.empty_in_row:
            self._floods.full_data()
        if size < length:
            credit.give(length - size)
            credit.give_stream(stream, length - size)
        event = DataReceived()
        event.stream = stream
        event.data = data
        event.is_end = is_end
        self.events.append(event)
        if is_end:  # as `_end`, without the call
            stream.receiving = _ENDED
            if stream.sending is _SENT:
                self._streams.end(stream)

    def _take_stray_data(self, stream_id: int, stream: Http2Stream | None, length: int) -> None:
        """DATA for a stream that expects none."""
        if not stream_id:
            raise protocol_error("DATA for stream 0")
        was = Was.RESET_BY_PEER if stream is not None else self._streams.what_became_of(stream_id)
        if was is Was.IDLE:
            raise protocol_error("DATA for a stream that has not begun")
        if was is Was.ENDED:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "DATA for a stream that is over")
        self._credit.give(length)
        if not length:
            self._floods.empty_data()
        if stream is not None and stream.receiving is _HEAD:
            raise malformed("DATA before the head")
        if was is Was.RESET_BY_PEER:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA for a stream that its sender has ended")

    def _end(self, stream: Http2Stream) -> None:
        stream.receiving = _ENDED
        if stream.sending is _SENT:
            self._streams.end(stream)

    # Header blocks

    def take_block(self, stream_id: int, block: bytes, flags: int, fault: StreamFault | None) -> None:
        """A whole header block; `flags` are those of its HEADERS. Whoever it is for, the table follows it."""
        if self._floods.empty_in_row:
            self._floods.full_data()
        stream = self._streams.live.get(stream_id)
        if stream is None:
            if self._is_server and stream_id > self._streams.last_id and stream_id & 1:
                self._begin_request(stream_id, block, flags, fault)
            else:
                self._take_stray_block(stream_id, block)
        elif fault is not None:
            self.heads.skip(block)
            raise fault
        elif stream.receiving is _BODY:
            self._take_trailers(stream, block, flags)
        elif stream.receiving is _HEAD:
            self._take_answer(stream, block, flags)
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

    def _begin_request(self, stream_id: int, block: bytes, flags: int, fault: StreamFault | None) -> None:
        streams = self._streams
        streams.last_id = stream_id
        is_end = flags & _END_STREAM != 0
        if stream_id > streams.goaway_sent:
            streams.remember(stream_id, Was.RESET_BY_US)
            self.heads.skip(block)
            return
        try:
            head = self.heads.requests.get(block) or self.heads.read_request(block)
        except HeadTooLarge as error:
            self._begin_too_large(stream_id, error, is_end=is_end)
            return
        if fault is not None:
            raise fault
        if head.length and is_end:
            raise malformed("no DATA, though content-length says so")
        if self._outbox.load.open_streams >= self._max_streams:
            raise StreamFault(ErrorCode.REFUSED_STREAM, "too many streams at once")
        stream = streams.begin(stream_id, self._control.peer.stream_window, self._credit.stream_window)
        stream.began_at = self.now
        stream.left = head.length
        stream.receiving = _ENDED if is_end else _BODY
        event = RequestReceived()
        event.stream = stream
        event.head = head
        event.is_end = is_end
        self.events.append(event)

    def _begin_too_large(self, stream_id: int, error: HeadTooLarge, *, is_end: bool) -> None:
        """Its owner answers, and it costs its sender what a reset would."""
        self._floods.reset(self.now)
        if self._outbox.load.open_streams >= self._max_streams:
            raise StreamFault(ErrorCode.REFUSED_STREAM, "too many streams at once")
        stream = self._streams.begin(stream_id, self._control.peer.stream_window, self._credit.stream_window)
        stream.began_at = self.now
        stream.left = None
        stream.receiving = _ENDED if is_end else _BODY
        self.events.append(RequestTooLarge(stream, error, is_end=is_end))

    def _take_answer(self, stream: Http2Stream, block: bytes, flags: int) -> None:
        is_end = flags & _END_STREAM != 0
        head = self.heads.responses.get(block) or self.heads.read_response(block)
        status = head.status
        if status < 200:
            self._take_interim(stream, is_end=is_end)
            interim = InterimReceived()
            interim.stream = stream
            interim.status = status
            interim.fields = head.fields
            interim.never_indexed = head.never_indexed
            self.events.append(interim)
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
        self.events.append(event)
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

    def _take_trailers(self, stream: Http2Stream, block: bytes, flags: int) -> None:
        known = self.heads.trailers.get(block)
        fields, never_indexed = (known, NONE_INDEXED) if known else self.heads.read_trailers(block)
        if not flags & _END_STREAM:
            raise malformed("HEADERS in the middle of a body")
        if stream.left:
            raise malformed("DATA is not as long as content-length says")
        event = TrailersReceived()
        event.stream = stream
        event.fields = fields
        event.never_indexed = never_indexed
        self.events.append(event)
        stream.receiving = _ENDED  # as `_end`, without the call
        if stream.sending is _SENT:
            self._streams.end(stream)

    # RST_STREAM

    def take_reset(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise frame_size_error("the size of RST_STREAM is not 4")
        stream = self._streams.live.get(stream_id)
        if stream is None and self._streams.what_became_of(stream_id) is Was.IDLE:
            raise protocol_error("RST_STREAM for a stream that has not begun")
        if self._is_server or stream is None:  # an upstream's reset of a request of ours costs us no work
            self._floods.reset(self.now, 0.0 if stream is None else self.now - stream.began_at)
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
        self.events.append(StreamReset(stream, code, detail, is_by_peer=True, is_unprocessed=is_unprocessed))

    def end_stream(self, stream_id: int, fault: StreamFault) -> None:
        """By RST_STREAM, for what the peer sent. Each costs it a token: else it could make us reset
        (CVE-2025-8671)."""
        stream = self._streams.live.get(stream_id)
        if stream is not None:
            self._control.reset(stream, fault.code)
            self.events.append(StreamReset(stream, fault.code, fault.detail, is_by_peer=False))
        else:
            is_new = self._streams.what_became_of(stream_id) is Was.ENDED
            self._outbox.control(frames.rst_stream(stream_id, fault.code))
            self._streams.remember(stream_id, Was.RESET_BY_US)
            if is_new and self._is_server:
                self.events.append(RequestMalformed(stream_id, fault.code, fault.detail))
        if self._is_server:
            self._floods.reset(self.now)


def _name(code: int) -> str:
    return ErrorCode(code).name if code in _CODES else hex(code)


_CODES: Final = frozenset(int(code) for code in ErrorCode)
