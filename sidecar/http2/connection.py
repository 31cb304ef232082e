"""One connection of HTTP/2, of either role: the engine behind `Http2Codec`.

What comes in is `Inbox`'s, `Arrivals`' and `Control`'s, what goes out `Outbox`'s and `Credit`'s, the streams are in
`Streams`; here is what the
owner of the socket calls, and how the connection ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from sidecar.core.head import NOTHING, Added, Own
from sidecar.core.plain import Field
from sidecar.http2 import frames, settings
from sidecar.http2.arrivals import Arrivals
from sidecar.http2.codec import NO_DROP, CodecLoad, Http2Codec, Pairs, Role
from sidecar.http2.control import Control
from sidecar.http2.credit import Credit
from sidecar.http2.errors import ConnectionFault, ErrorCode
from sidecar.http2.events import NONE_INDEXED, ConnectionFailed, Http2Event
from sidecar.http2.floods import TRUSTED, FloodLimits, Floods
from sidecar.http2.hpack_encoder import STATUS_PAIRS
from sidecar.http2.inbox import Inbox
from sidecar.http2.outbox import HIGH_WATER_BYTES, Outbox
from sidecar.http2.preface import PREFACE
from sidecar.http2.settings import DEFAULT_WINDOW, OURS, Http2Settings
from sidecar.http2.stream import Http2Stream, Receiving, Sending
from sidecar.http2.streams import MAX_STREAM_ID, Streams

_HEAD: Final = Sending.HEAD
_BODY: Final = Sending.BODY
_ENDING: Final = Sending.ENDING
_SENT = Sending.ENDED  # not final: a type checker would hold that nothing is sent between two looks
_ENDED: Final = Receiving.ENDED
_END_STREAM: Final = frames.END_STREAM


class Life(Enum):
    """Of the connection."""

    OPEN = auto()
    FAILED = auto()
    """The peer has broken a rule, and GOAWAY says which."""


_OPEN: Final = Life.OPEN


class Connection(Http2Codec):
    """SETTINGS, and a client's preface, are with `take` from the beginning."""

    __slots__ = (
        "_control", "_credit", "_inbox", "_life", "_outbox", "_streams", "floods", "load", "out", "peer",
    )  # fmt: skip

    def __init__(self, role: Role, ours: Http2Settings = OURS, limits: FloodLimits = TRUSTED) -> None:
        is_server = role is Role.SERVER
        self._life = Life.OPEN
        load = self.load = CodecLoad()
        self._streams = Streams(load, is_server=is_server)
        self._outbox = Outbox(load)
        self.out = self._outbox.out
        self.floods: Final = Floods(limits)
        """What was counted of each bound."""
        self._control = Control(self._streams, self._outbox, self.floods)
        self._credit = Credit(ours, self._outbox)
        arrivals = Arrivals(ours, self._streams, self._outbox, self.floods, self._control, self._credit)
        self._inbox = Inbox(ours, self._streams, self.floods, self._control, arrivals)
        self.peer = self._control.peer
        if not is_server:
            self._outbox.control(PREFACE)
        self._outbox.control(frames.settings(_settings(ours, is_server=is_server)))
        self._control.unacknowledged = 1
        if ours.connection_window > DEFAULT_WINDOW:
            self._outbox.control(frames.window_update(0, ours.connection_window - DEFAULT_WINDOW))

    def __repr__(self) -> str:
        role = "server" if self._streams.is_server else "client"
        return f"<Connection {role} {self._life.name} open={self.load.open_streams} last={self._streams.last_id}>"

    # Bytes

    def receive(self, data: bytes, now: float) -> list[Http2Event]:
        events: list[Http2Event] = []
        if self._life is _OPEN:
            try:
                self._inbox.receive(data, events, now)
            except ConnectionFault as fault:
                self._fail(fault, events)
        return events

    def _fail(self, fault: ConnectionFault, events: list[Http2Event]) -> None:
        self._life = Life.FAILED
        self._streams.open_no_more()
        last_id = self._last_taken()
        self._outbox.control(frames.goaway(last_id, fault.code, fault.detail.encode()))
        events.append(ConnectionFailed(fault.code, fault.detail, fault.flood))

    def take(self) -> bytes:
        return self._outbox.take()

    def hold_data(self) -> None:
        self._outbox.is_held = True

    def resume_data(self) -> list[Http2Event]:
        events: list[Http2Event] = []
        self._outbox.is_held = False
        if self._life is _OPEN:
            self._control.flush(events)
        return events

    # Heads

    def can_open(self) -> bool:
        streams = self._streams
        return len(streams.live) < streams.most and streams.last_id < MAX_STREAM_ID

    def open_stream(
        self,
        pseudo: Pairs,
        fields: Sequence[Field],
        drop: frozenset[bytes] = NO_DROP,
        pairs: Pairs = (),
        never_indexed: frozenset[bytes] = NONE_INDEXED,
        added: Added = NOTHING,
        shared: bytes = b"",
        own: Own | tuple[()] = (),
        *,
        is_end: bool = False,
    ) -> Http2Stream:
        streams = self._streams
        if not self.can_open():
            raise RuntimeError(f"{self!r} opens no more streams; ask can_open first")
        stream_id = streams.last_id + 2 if streams.last_id else 1
        stream = streams.begin(stream_id, self.peer.stream_window, self._credit.stream_window)
        stream.method = pseudo[0][1]
        block = self._outbox.encoder.encode(pseudo, fields, drop, pairs, never_indexed, added, shared, own)
        self._outbox.head(stream, block, _END_STREAM if is_end else 0)
        return stream

    def send_head(
        self,
        stream: Http2Stream,
        status: int,
        fields: Sequence[Field],
        drop: frozenset[bytes] = NO_DROP,
        pairs: Pairs = (),
        never_indexed: frozenset[bytes] = NONE_INDEXED,
        added: Added = NOTHING,
        shared: bytes = b"",
        own: Own | tuple[()] = (),
        *,
        is_end: bool = False,
    ) -> None:
        if stream.sending is not _HEAD or self._life is not _OPEN:
            return
        pseudo = (STATUS_PAIRS[status],)
        block = self._outbox.encoder.encode(pseudo, fields, drop, pairs, never_indexed, added, shared, own)
        if status < 200:
            self._outbox.block(stream.stream_id, block, 0)
            return
        self._outbox.head(stream, block, _END_STREAM if is_end else 0)
        if is_end:
            self._control.has_sent(stream)

    # Bodies

    def send_data(self, stream: Http2Stream, data: bytes) -> bool:
        if stream.sending is not _BODY or not data or self._life is not _OPEN:
            return True
        self._outbox.data(stream, data)
        if stream.unsent_bytes < HIGH_WATER_BYTES:
            return True
        stream.is_blocked = True
        return False

    def end(
        self,
        stream: Http2Stream,
        fields: Sequence[Field] = (),
        pairs: Pairs = (),
        *,
        never_indexed: frozenset[bytes] = NONE_INDEXED,
    ) -> bool:
        if stream.sending is not _BODY or self._life is not _OPEN:
            return stream.sending is not _ENDING
        self._outbox.end(stream, fields, pairs, never_indexed)
        if stream.sending is not _SENT:
            return False
        self._control.has_sent(stream)
        return True

    def send_last(self, stream: Http2Stream, data: bytes, trailers: Sequence[Field] = ()) -> bool:
        if stream.sending is not _BODY or self._life is not _OPEN:
            return stream.sending is not _ENDING
        self._outbox.data(stream, data, 0 if trailers else _END_STREAM)
        if stream.sending is not _SENT:
            if stream.unsent_bytes or not trailers:
                return self.end(stream, trailers)  # it waits, or took more than one frame
            self._outbox.trailers(stream, trailers, (), NONE_INDEXED)
        if stream.receiving is _ENDED:  # as `Control.has_sent`, without the call
            self._streams.end(stream)
        else:
            self._control.has_sent(stream)
        return True

    def reset(self, stream: Http2Stream, code: ErrorCode) -> None:
        if stream.is_over or self._life is not _OPEN:
            return
        if code is ErrorCode.NO_ERROR and stream.sending is _ENDING:
            stream.reset_after = code
        else:
            self._control.reset(stream, code)

    def release(self, stream: Http2Stream) -> None:
        self._streams.release(stream)
        sending = stream.sending
        if sending is _SENT or sending is _ENDING:
            if stream.receiving is not _ENDED:
                self.reset(stream, ErrorCode.NO_ERROR if self._streams.is_server else ErrorCode.CANCEL)
        else:
            self.reset(stream, ErrorCode.CANCEL)

    # Flow control

    def credit_connection(self, size: int) -> None:
        if self._life is _OPEN:
            self._credit.give(size)

    def credit_stream(self, stream: Http2Stream, size: int) -> None:
        if self._life is _OPEN:
            self._credit.give_stream(stream, size)

    # Connection

    def ping(self, payload: bytes) -> None:
        if len(payload) != 8:
            raise ValueError(f"the payload of a PING has {len(payload)} bytes; give 8")
        if self._life is _OPEN:
            self._outbox.control(frames.ping(payload, is_answer=False))

    def drain(self) -> None:
        if self._life is _OPEN and not self.load.is_draining:
            self.load.is_draining = True
            self._streams.open_no_more()
            self._outbox.control(frames.goaway(MAX_STREAM_ID, ErrorCode.NO_ERROR, b""))

    def goaway(self, code: ErrorCode = ErrorCode.NO_ERROR, debug: bytes = b"") -> None:
        if self._life is _OPEN:
            self.load.is_draining = True
            last_id = self._last_taken()
            self._streams.goaway_sent = last_id
            self._streams.open_no_more()
            self._outbox.control(frames.goaway(last_id, code, debug))

    def _last_taken(self) -> int:
        """What GOAWAY says: a client takes nothing, since nothing is pushed to it."""
        return min(self._streams.last_id, self._streams.goaway_sent) if self._streams.is_server else 0


def _settings(ours: Http2Settings, *, is_server: bool) -> dict[int, int]:
    values = {
        settings.INITIAL_WINDOW_SIZE: ours.stream_window,
        settings.MAX_HEADER_LIST_SIZE: ours.max_header_list_bytes,
    }
    if ours.header_table_bytes != 4096:
        values[settings.HEADER_TABLE_SIZE] = ours.header_table_bytes
    if is_server:
        values[settings.MAX_CONCURRENT_STREAMS] = ours.max_concurrent_streams
        values[settings.ENABLE_CONNECT_PROTOCOL] = 1
    else:
        values[settings.ENABLE_PUSH] = 0
    return values
