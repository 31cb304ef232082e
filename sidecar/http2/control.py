"""Frames about the connection, or about no message: SETTINGS, PING, GOAWAY, WINDOW_UPDATE, PRIORITY (RFC 9113 6).

Each method gets the payload of one frame, counts it against its bound, and raises what is wrong with it.
"""

from __future__ import annotations

from typing import Final

from sidecar.http2 import frames, settings
from sidecar.http2.errors import ConnectionFault, ErrorCode, StreamFault, frame_size_error, protocol_error
from sidecar.http2.events import (
    GoawayReceived,
    Http2Event,
    PeerSettings,
    PingAcknowledged,
    SettingsAcknowledged,
    StreamReset,
    StreamSent,
    StreamWritable,
)
from sidecar.http2.floods import Floods
from sidecar.http2.outbox import Outbox
from sidecar.http2.settings import MAX_WINDOW, PeerLimits
from sidecar.http2.stream import Http2Stream, Receiving, Sending
from sidecar.http2.streams import MAX_STREAM_ID, Streams, Was

MAX_SETTINGS: Final = 64
"""In one frame."""
MAX_DEBUG_BYTES: Final = 256
"""Of what a GOAWAY says that are kept."""
_RECEIVED: Final = Receiving.ENDED
"""Read from here in the hot path: an enum's own lookup costs 15 to 50 ns each time."""


class Control:
    """Of one connection."""

    __slots__ = ("floods", "outbox", "peer", "streams", "unacknowledged")

    def __init__(self, streams: Streams, outbox: Outbox, floods: Floods) -> None:
        self.streams = streams
        self.outbox = outbox
        self.floods = floods
        self.peer = PeerLimits()
        self.unacknowledged = 0
        """SETTINGS of ours."""

    # SETTINGS

    def take_settings(self, flags: int, payload: bytes, events: list[Http2Event], now: float) -> None:
        if flags & frames.ACK:
            if payload:
                raise frame_size_error("an acknowledgement of SETTINGS that says something")
            if not self.unacknowledged:
                raise protocol_error("an acknowledgement of no SETTINGS")
            self.unacknowledged -= 1
            events.append(SettingsAcknowledged())
            return
        if len(payload) % 6:
            raise frame_size_error("the size of SETTINGS is no multiple of 6")
        self.floods.settings(now)
        if len(payload) > 6 * MAX_SETTINGS:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many settings in one frame", "settings")
        window = self.peer.stream_window
        for position in range(0, len(payload), 6):
            key, value = frames.unpack_setting(payload, position)
            self._set(key, value)
        self.peer.is_known = True
        self.streams.allow(self.peer.max_concurrent_streams)
        if self.peer.no_priorities is None:
            self.peer.no_priorities = 0
        self.outbox.answer(frames.SETTINGS_ACK)
        self.floods.answer(self.outbox.load.unsent_answers)
        events.append(PeerSettings())
        if self.peer.stream_window != window:
            self._change_windows(self.peer.stream_window - window, events)

    def _set(self, key: int, value: int) -> None:
        """RFC 9113 6.5.2. What is unknown is ignored."""
        peer = self.peer
        if key == settings.HEADER_TABLE_SIZE:
            peer.header_table_bytes = value
            self.outbox.encoder.set_table_bytes(value)
        elif key == settings.ENABLE_PUSH:
            if value > 1 or (value and not self.streams.is_server):
                raise protocol_error(f"ENABLE_PUSH is {value}")
        elif key == settings.MAX_CONCURRENT_STREAMS:
            peer.max_concurrent_streams = value
        elif key == settings.INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
            peer.stream_window = value
        elif key == settings.MAX_FRAME_SIZE:
            if not settings.MIN_FRAME_SIZE <= value <= settings.MAX_FRAME_SIZE_LIMIT:
                raise protocol_error(f"MAX_FRAME_SIZE is {value}")
            peer.max_frame_bytes = value
        elif key == settings.MAX_HEADER_LIST_SIZE:
            peer.max_header_list_bytes = value
        elif key == settings.ENABLE_CONNECT_PROTOCOL:
            if value > 1 or (not value and peer.is_connect_protocol_enabled):
                raise protocol_error(f"ENABLE_CONNECT_PROTOCOL is {value}")
            peer.is_connect_protocol_enabled = bool(value)
        elif key == settings.NO_RFC7540_PRIORITIES:
            if value > 1 or peer.no_priorities not in (None, value):
                raise protocol_error(f"NO_RFC7540_PRIORITIES is {value}")
            peer.no_priorities = value

    def _change_windows(self, change: int, events: list[Http2Event]) -> None:
        """RFC 9113 6.9.2: of the streams that are there, too."""
        for stream in list(self.streams.live.values()):
            stream.send_window += change
            if stream.send_window > MAX_WINDOW:
                raise ConnectionFault(
                    ErrorCode.FLOW_CONTROL_ERROR, "a setting makes a stream's window too large"
                )
            self.outbox.wake(stream)
        if change > 0:
            self.flush(events)

    # PING, GOAWAY

    def take_ping(self, flags: int, payload: bytes, events: list[Http2Event], now: float) -> None:
        if len(payload) != 8:
            raise frame_size_error("the size of PING is not 8")
        if flags & frames.ACK:
            events.append(PingAcknowledged(payload))
            return
        self.floods.ping(now, self.outbox.data_frames)
        self.outbox.answer(frames.ping(payload, is_answer=True))
        self.floods.answer(self.outbox.load.unsent_answers)

    def take_goaway(self, payload: bytes, events: list[Http2Event]) -> None:
        if len(payload) < 8:
            raise frame_size_error("the size of GOAWAY is below 8")
        streams = self.streams
        self.floods.unknown(streams.begun)
        last_id, code = frames.unpack_goaway(payload, 0)
        last_id &= MAX_STREAM_ID
        if last_id > streams.goaway_received:
            raise protocol_error("a GOAWAY with a higher stream than the one before")
        streams.goaway_received = last_id
        self.outbox.load.is_draining = True
        self.streams.open_no_more()
        events.append(GoawayReceived(last_id, code, payload[8 : 8 + MAX_DEBUG_BYTES]))
        if streams.is_server:
            return
        for stream in [stream for stream in streams.live.values() if stream.stream_id > last_id]:
            self.outbox.drop(stream)
            stream.receiving = Receiving.RESET
            streams.forget_reset(stream, Was.RESET_BY_PEER)
            detail = "the server has said GOAWAY and did not take the stream"
            events.append(StreamReset(stream, code, detail, is_by_peer=True, is_unprocessed=True))

    # Windows, priorities

    def take_window_update(self, stream_id: int, payload: bytes, events: list[Http2Event]) -> None:
        if len(payload) != 4:
            raise frame_size_error("the size of WINDOW_UPDATE is not 4")
        streams = self.streams
        outbox = self.outbox
        self.floods.window_update(streams.begun, outbox.data_frames)
        size = frames.unpack_long(payload, 0)[0] & MAX_WINDOW
        if not stream_id:
            if not size:
                raise protocol_error("a WINDOW_UPDATE of 0")
            outbox.window += size
            if outbox.window > MAX_WINDOW:
                raise ConnectionFault(
                    ErrorCode.FLOW_CONTROL_ERROR, "the window of the connection is too large"
                )
            self.flush(events)
            return
        stream = streams.live.get(stream_id)
        if stream is None:
            if streams.what_became_of(stream_id) is Was.IDLE:
                raise protocol_error("WINDOW_UPDATE for a stream that has not begun")
            return
        if not size:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a WINDOW_UPDATE of 0")
        stream.send_window += size
        if stream.send_window > MAX_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "the window of a stream is too large")
        if outbox.flush_stream(stream):
            self._tell(stream, events)

    def take_priority(self, stream_id: int, payload: bytes) -> None:
        """Read for its faults alone: RFC 9113 5.3.2 has abolished what it says."""
        if not stream_id:
            raise protocol_error("PRIORITY for stream 0")
        self.floods.priority(self.streams.begun)
        if len(payload) != 5:
            if stream_id in self.streams.live:
                raise StreamFault(ErrorCode.FRAME_SIZE_ERROR, "the size of PRIORITY is not 5")
            raise frame_size_error("the size of PRIORITY is not 5")
        if frames.unpack_long(payload, 0)[0] & MAX_STREAM_ID == stream_id:
            if stream_id in self.streams.live:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")
            if self.streams.what_became_of(stream_id) is Was.IDLE:
                raise protocol_error("a stream that depends on itself")

    def flush(self, events: list[Http2Event]) -> None:
        """Send what waited, now that there is room, and tell whose state has changed."""
        for stream in self.outbox.flush():
            self._tell(stream, events)

    def _tell(self, stream: Http2Stream, events: list[Http2Event]) -> None:
        if stream.sending is Sending.ENDED:
            events.append(StreamSent(stream))
            self.has_sent(stream)
        elif stream.is_blocked:
            stream.is_blocked = False
            events.append(StreamWritable(stream))

    def has_sent(self, stream: Http2Stream) -> None:
        """END_STREAM is written: the stream may be over, or its reset may be due."""
        if stream.receiving is _RECEIVED:
            self.streams.end(stream)
        elif stream.reset_after is not None:
            self.reset(stream, stream.reset_after)

    def reset(self, stream: Http2Stream, code: int) -> None:
        """By RST_STREAM, whatever state it is in."""
        self.outbox.control(frames.rst_stream(stream.stream_id, code))
        self.outbox.drop(stream)
        stream.receiving = Receiving.RESET
        self.streams.forget_reset(stream, Was.RESET_BY_US)
