"""A stream of HTTP/2 as one side of a tunnel (RFC 8441): `transport.channel.Channel` on top of DATA frames.

END_STREAM is the end of a direction, RST_STREAM with CANCEL the end of both before their time (RFC 8441 4, 5).
Back-pressure is the stream's flow control: no credit while the other side of the tunnel takes no more. Owned by the
stream's owner, which tells it what the codec tells, and hears by `on_closed` that nothing more goes either way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sidecar.http2.codec import Http2Codec
from sidecar.http2.errors import ErrorCode
from sidecar.http2.stream import Http2Stream


class StreamLink:
    """One stream whose heads have passed, both ways."""

    __slots__ = (
        "_call_soon", "_codec", "_has_other_ended", "_held_bytes", "_is_blocked", "_is_breaking", "_is_held",
        "_is_muted", "_on_closed", "_sink", "_stream", "_write_soon", "is_lost", "is_over",
    )  # fmt: skip

    can_half_close: Final = True
    unsent_bytes: Final = 0
    """What waits in the stream is charged to its connection."""

    def __init__(
        self,
        codec: Http2Codec,
        stream: Http2Stream,
        *,
        write_soon: Callable[[], None],
        call_soon: Callable[..., Any],
        on_closed: Callable[[], None],
        has_other_ended: bool = False,
    ) -> None:
        self._codec = codec
        self._stream = stream
        self._write_soon = write_soon
        self._call_soon = call_soon
        self._on_closed = on_closed
        self._sink: Any = None
        self._is_held = False
        self._held_bytes = 0
        """Passed on without credit."""
        self._is_blocked = False
        self._is_muted = False
        """Nothing more is to be written."""
        self._is_breaking = False
        """It is reset as soon as what was written has gone out."""
        self._has_other_ended = has_other_ended
        self.is_over = False
        """Nothing more goes either way."""
        self.is_lost = False
        """The sink has been told so."""

    def __repr__(self) -> str:
        return f"<StreamLink {self._stream!r}>"

    # What the tunnel does

    def set_sink(self, protocol: Any) -> None:
        self._sink = protocol

    def write(self, data: Any, /) -> None:
        if self._is_muted:
            return
        if not self._codec.send_data(self._stream, data) and not self._is_blocked:
            self._is_blocked = True
            self._sink.pause_writing()
        self._write_soon()

    def pause(self) -> None:
        self._is_held = True

    def resume(self) -> None:
        self._is_held = False
        held, self._held_bytes = self._held_bytes, 0
        if held and not self.is_over:
            self._codec.credit_stream(self._stream, held)
            self._write_soon()

    def end_writing(self) -> None:
        if self._is_muted:
            return
        self._is_muted = True
        is_sent = self._codec.end(self._stream)
        self._write_soon()
        if is_sent and self._has_other_ended:
            self._closed(None)

    def close(self) -> None:
        self.end_writing()

    def break_off(self) -> None:
        if self.is_over:
            return
        if self._stream.unsent_bytes:
            self._is_breaking = True
            self.end_writing()
        else:
            self.abort()

    def abort(self) -> None:
        if not self.is_over:
            self._codec.reset(self._stream, ErrorCode.CANCEL)
            self._write_soon()
            self._closed(None)

    def lost(self) -> None:
        self.is_lost = True

    def untaken_bytes(self) -> int:
        return self._stream.unsent_bytes

    # What the stream's owner tells

    def received(self, data: bytes, *, is_end: bool) -> None:
        if data and not self.is_over:
            self._sink.data_received(data)
            if self._is_held:
                self._held_bytes += len(data)
            else:
                self._codec.credit_stream(self._stream, len(data))
                self._write_soon()
        if is_end:
            self.ended()

    def ended(self) -> None:
        """The other side has ended its direction."""
        if self.is_over or self._has_other_ended:
            return
        self._has_other_ended = True
        if not self._sink.eof_received():
            self.end_writing()
        if self._is_muted and not self._stream.unsent_bytes:
            self._closed(None)

    def writable(self) -> None:
        if self._is_blocked and not self.is_over:
            self._is_blocked = False
            self._sink.resume_writing()

    def sent(self) -> None:
        """All that was written has gone out, and its end."""
        if self._is_breaking:
            self.abort()
        elif self._has_other_ended:
            self._closed(None)

    def gone(self, error: Exception | None) -> None:
        """The stream was reset, or its connection is lost."""
        self._closed(error)

    def _closed(self, error: Exception | None) -> None:
        if not self.is_over:
            self.is_over = self._is_muted = True
            self._on_closed()
            self._call_soon(self._tell_lost, error)

    def _tell_lost(self, error: Exception | None) -> None:
        self._sink.connection_lost(error)
