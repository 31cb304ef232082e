"""What goes to the peer: frames in the order of their making, and bodies that wait for a window.

Decides how much of which body may be sent, and is the one writer of each stream's `sending`. Streams that wait for
the connection's window take turns, one frame each. It knows nothing of what comes in; `Connection` asks it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from sidecar.core.headers import NEVER_IN_TRAILERS
from sidecar.core.plain import Field
from sidecar.http2 import frames
from sidecar.http2.codec import CodecLoad
from sidecar.http2.frames import MAX_BYTES, pack_header
from sidecar.http2.hpack_encoder import HpackEncoder, Pair
from sidecar.http2.settings import DEFAULT_WINDOW
from sidecar.http2.stream import Http2Stream, Sending

HIGH_WATER_BYTES: Final = 64 * 1024
"""Unsent bytes of one stream from which on `send_data` says that it is enough."""
LOW_WATER_BYTES: Final = 16 * 1024
"""And at which it takes more again."""

_HEADERS: Final = frames.HEADERS
_END_HEADERS: Final = frames.END_HEADERS
_END_STREAM: Final = frames.END_STREAM
_BODY: Final = Sending.BODY
_ENDING: Final = Sending.ENDING
_ENDED: Final = Sending.ENDED


class Outbox:
    """Of one connection."""

    __slots__ = (
        "_data_at", "_data_size", "_data_stream", "_waiting", "data_frames", "encoder", "is_held", "load", "out",
        "window",
    )  # fmt: skip

    def __init__(self, load: CodecLoad) -> None:
        self.load = load
        """Whose `unsent_answers` and `unsent_bytes` are written here."""
        self.encoder = HpackEncoder()
        self.window = DEFAULT_WINDOW
        """Of the connection: bytes that we may send."""
        self.is_held = False
        """The link is full: bodies wait."""
        self.data_frames = 0
        """Sent so far."""
        self.out: list[bytes | memoryview] = []
        """What `take` will give; the same list for good."""
        self._waiting: dict[int, Http2Stream] = {}
        """Streams with something unsent that wait for the connection's window or the link, not for their own windows;
        who has waited longest is first. So one WINDOW_UPDATE costs no more than the frames that it lets go."""
        self._data_stream = 0
        """Whose DATA was the last one written since `take`, where in `out` its header is, and its size: END_STREAM
        is put into it, where the end comes at once."""
        self._data_at = 0
        self._data_size = 0

    def take(self) -> bytes:
        out = self.out
        if not out:
            return b""
        self.load.unsent_answers = 0
        self._data_stream = 0
        written = b"".join(out)
        out.clear()
        return written

    def control(self, frame: bytes) -> None:
        """A frame that waits for no window."""
        self.out.append(frame)

    def answer(self, frame: bytes) -> None:
        """An answer to SETTINGS or PING."""
        self.load.unsent_answers += 1
        self.out.append(frame)

    # Heads

    def head(self, stream: Http2Stream, block: bytes, flags: int) -> None:
        """The final head of a stream, or its trailers. `flags` are END_STREAM, or 0."""
        stream.sending = _ENDED if flags else _BODY
        size = len(block)
        if size <= MAX_BYTES:
            self.out.append(pack_header(size << 8 | _HEADERS, flags | _END_HEADERS, stream.stream_id))
            self.out.append(block)
        else:
            self.block(stream.stream_id, block, flags)

    def block(self, stream_id: int, block: bytes, flags: int) -> None:
        """A header block, in as many frames as it takes. `flags` are END_STREAM, or 0."""
        out = self.out
        size = len(block)
        if size <= MAX_BYTES:
            out.append(pack_header(size << 8 | _HEADERS, flags | _END_HEADERS, stream_id))
            out.append(block)
            return
        kind = frames.HEADERS
        for start in range(0, size, MAX_BYTES):
            part = block[start : start + MAX_BYTES]
            if start + MAX_BYTES >= size:
                flags |= frames.END_HEADERS
            out.append(pack_header(len(part) << 8 | kind, flags, stream_id))
            out.append(part)
            kind, flags = frames.CONTINUATION, 0

    # Bodies

    def data(self, stream: Http2Stream, data: bytes, flags: int = 0) -> None:
        """Send it, or let it wait behind what does already. `flags` is END_STREAM for the last of it, which is said
        only where it goes out at once: see `sending`."""
        size = len(data)
        if (
            size <= MAX_BYTES
            and not stream.unsent_bytes
            and size <= stream.send_window
            and size <= self.window
            and not self.is_held
        ):
            out = self.out
            if flags:
                self._data_stream = 0
                stream.sending = _ENDED
            else:
                self._data_stream = stream.stream_id
                self._data_at = len(out)
                self._data_size = size
            out.append(pack_header(size << 8, flags, stream.stream_id))
            out.append(data)
            self.data_frames += 1
            self.window -= size
            stream.send_window -= size
        else:
            if stream.unsent is None:
                stream.unsent = deque()
            stream.unsent.append(data)
            stream.unsent_bytes += size
            self.load.unsent_bytes += size
            self._send(stream)

    def end(
        self,
        stream: Http2Stream,
        fields: Sequence[Field],
        pairs: Sequence[Pair],
        never_indexed: frozenset[bytes],
    ) -> None:
        """END_STREAM once what waits has gone, with trailers if there are any."""
        if fields or pairs:
            stream.trailers = fields, pairs, never_indexed
        stream.sending = _ENDING
        if not stream.unsent_bytes:
            self._finish(stream)

    def flush(self) -> list[Http2Stream]:
        """The window of the connection is open again: send what waits, in turns. Returns whose state has changed."""
        changed: dict[int, Http2Stream] = {}
        waiting = self._waiting
        while waiting and self.window > 0 and not self.is_held:
            stream = waiting.pop(next(iter(waiting)))
            if self._send_frame(stream):
                self.wake(stream)
                if self._has_changed(stream):
                    changed[stream.stream_id] = stream
        return list(changed.values())

    def wake(self, stream: Http2Stream) -> None:
        """It waits for nothing of its own."""
        if stream.unsent_bytes:
            _let_go_of_sent(stream)
            if stream.send_window > 0:
                self._waiting[stream.stream_id] = stream

    def flush_stream(self, stream: Http2Stream) -> bool:
        """Its own window has grown. True: its state has changed."""
        if not stream.unsent_bytes:
            return False
        before = stream.unsent_bytes
        self._send(stream)
        return stream.unsent_bytes < before and self._has_changed(stream)

    def drop(self, stream: Http2Stream) -> None:
        """The stream was reset: what waits is not sent."""
        stream.sending = Sending.RESET
        stream.unsent = None
        self.load.unsent_bytes -= stream.unsent_bytes
        stream.unsent_bytes = 0
        stream.trailers = None
        self._waiting.pop(stream.stream_id, None)

    def _allowed(self, stream: Http2Stream) -> int:
        if self.is_held:
            return 0
        own = stream.send_window
        return own if own < self.window else self.window

    def _write_header(self, stream: Http2Stream, size: int) -> None:
        """Of DATA, whose bytes come next; as `data` does it."""
        out = self.out
        self._data_stream = stream.stream_id
        self._data_at = len(out)
        self._data_size = size
        out.append(pack_header(size << 8, 0, stream.stream_id))
        self.data_frames += 1
        self.window -= size
        stream.send_window -= size

    def _send(self, stream: Http2Stream) -> None:
        """As much as the windows allow."""
        while self._send_frame(stream):
            pass
        self.wake(stream)
        if not stream.unsent_bytes or stream.send_window <= 0:
            self._waiting.pop(stream.stream_id, None)

    def _send_frame(self, stream: Http2Stream) -> int:
        """One frame of what waits; returns its size, 0 if none is allowed.

        It is as large as it may be, of as many pieces as it takes: where a window has cut one in two, a rest of one
        byte would else be a frame, and its byte of credit come back alone. Tomcat ends a connection with two such
        frames in a row (`overheadDataThreshold`).
        """
        size = min(self._allowed(stream), MAX_BYTES, stream.unsent_bytes)
        waiting = stream.unsent
        if size <= 0 or waiting is None:
            return 0
        self._write_header(stream, size)
        left = size
        while left:
            data = waiting.popleft()
            if len(data) > left:
                view = memoryview(data)  # to copy the rest each time takes the square of its size
                waiting.appendleft(view[left:])
                data = view[:left]
            left -= len(data)
            self.out.append(data)
        stream.unsent_bytes -= size
        self.load.unsent_bytes -= size
        if stream.sending is _ENDING and not stream.unsent_bytes:
            self._finish(stream)
        return size

    def _has_changed(self, stream: Http2Stream) -> bool:
        return stream.sending is _ENDED or (stream.is_blocked and stream.unsent_bytes <= LOW_WATER_BYTES)

    def _finish(self, stream: Http2Stream) -> None:
        trailers = stream.trailers
        if trailers is not None:
            stream.trailers = None
            fields, pairs, never_indexed = trailers
            self.trailers(stream, fields, pairs, never_indexed)
        else:
            self._end(stream)

    def trailers(
        self,
        stream: Http2Stream,
        fields: Sequence[Field],
        pairs: Sequence[Pair],
        never_indexed: frozenset[bytes],
    ) -> None:
        """What stands behind a body of which nothing waits; without any that may stand there, END_STREAM alone."""
        block = self.encoder.encode((), fields, NEVER_IN_TRAILERS, pairs, never_indexed)
        if block:
            self.head(stream, block, _END_STREAM)
        else:
            self._end(stream)

    def _end(self, stream: Http2Stream) -> None:
        stream.sending = _ENDED
        stream_id = stream.stream_id
        if self._data_stream == stream_id:
            self.out[self._data_at] = pack_header(self._data_size << 8, _END_STREAM, stream_id)
        else:
            self.out.append(pack_header(0, _END_STREAM, stream_id))


def _let_go_of_sent(stream: Http2Stream) -> None:
    """What waits is counted by its own size, so it must not keep in memory what it is a small part of.

    It is copied when it has become half of that: in all no more bytes than are sent.
    """
    assert stream.unsent is not None
    rest = stream.unsent[0]
    if isinstance(rest, memoryview):
        whole = rest.obj
        if isinstance(whole, bytes) and 2 * len(rest) <= len(whole):
            stream.unsent[0] = bytes(rest)
