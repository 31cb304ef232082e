"""What the peer may send: the window of the connection towards us, and those of its streams (RFC 9113 6.9).

Credit that the owner gives is kept until half of a window is together: each WINDOW_UPDATE costs both sides.
"""

from __future__ import annotations

from typing import Final, NoReturn

from sidecar.http2 import frames
from sidecar.http2.errors import ConnectionFault, ErrorCode, StreamFault
from sidecar.http2.outbox import Outbox
from sidecar.http2.settings import Http2Settings
from sidecar.http2.stream import Http2Stream, Receiving

_BODY: Final = Receiving.BODY


class Credit:
    """Of one connection."""

    __slots__ = ("_credit", "_outbox", "_window_bytes", "stream_window", "window")

    def __init__(self, settings: Http2Settings, outbox: Outbox) -> None:
        self._outbox = outbox
        self._window_bytes = settings.connection_window
        self.window = settings.connection_window
        """Bytes that the peer may send on the connection. Whoever takes a frame of DATA takes off its size, padding
        included."""
        self._credit = 0
        """Given by the owner, and not told the peer yet."""
        self.stream_window = settings.stream_window
        """Bytes that it may send on each stream, at its beginning."""

    def spend(self, size: int) -> None:
        """The peer has sent `size` bytes of DATA, padding included. Raises: ConnectionFault."""
        self.window -= size
        if self.window < 0:
            raise _too_much()

    def overspent(self, size: int) -> NoReturn:
        """The peer has sent `size` bytes of DATA that one of the windows, the connection's or its stream's, did not
        allow.

        Raises: ConnectionFault, StreamFault.
        """
        if self.window < 0:
            raise _too_much()
        self.give(size)
        raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window allows")

    def give(self, size: int) -> None:
        """Of the connection."""
        self._credit += size
        if self._credit * 2 >= self._window_bytes:
            self._outbox.control(frames.window_update(0, self._credit))
            self.window += self._credit
            self._credit = 0

    def give_stream(self, stream: Http2Stream, size: int) -> None:
        """Nothing where no body comes any more."""
        if stream.receiving is not _BODY:
            return
        stream.credit += size
        if stream.credit * 2 >= self.stream_window:
            self._outbox.control(frames.window_update(stream.stream_id, stream.credit))
            stream.receive_window += stream.credit
            stream.credit = 0


def _too_much() -> ConnectionFault:
    return ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window allows")
