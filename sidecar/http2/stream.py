"""One stream as its connection sees it: two halves, each with its phase, its window, and what waits to be sent.

RFC 9113 5.1 draws one machine of seven states; it is the product of these two halves. Each has one writer:
`receiving` is `Connection`'s, `sending` is `Outbox`'s. Idle streams have no object.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import Any, Final


class Receiving(Enum):
    """What the peer may send next."""

    HEAD = auto()
    """A final head; interim ones may come before it."""
    BODY = auto()
    ENDED = auto()
    """Nothing: END_STREAM has come."""
    RESET = auto()
    """Nothing: either side has reset the stream."""


class Sending(Enum):
    """What we may send next."""

    HEAD = auto()
    BODY = auto()
    ENDING = auto()
    """Nothing is added; what waits goes out first, then END_STREAM."""
    ENDED = auto()
    RESET = auto()


# Read from module globals in the hot path: an enum's own lookup costs 15 to 50 ns each time.
_OVER = (Receiving.ENDED, Receiving.RESET)
_SENT = (Sending.ENDED, Sending.RESET)
_TO_RECEIVE: Final = Receiving.HEAD
_TO_SEND: Final = Sending.HEAD


class Http2Stream:
    """Given out by events and by `open_stream`. Others write `owner` and read the rest."""

    __slots__ = (
        "began_at", "credit", "interims", "is_blocked", "is_released", "left", "method", "owner", "receive_window",
        "receiving", "reset_after", "send_window", "sending", "stream_id", "trailers", "unsent", "unsent_bytes",
    )  # fmt: skip

    began_at: float
    """When a client's request had come, in seconds as `receive` was told them; a server sets it."""
    left: int | None
    """Of the body that comes: bytes that `content-length` still promises; None where it promised nothing. Set with
    the head."""
    method: bytes
    """Of the request that a client sent, which sets it: what an answer's `content-length` means depends on it."""

    def take(self, stream_id: int, send_window: int, receive_window: int) -> Http2Stream:
        """Set what both roles have; comes first. Returns itself: the call of an `__init__` takes 800 instructions."""
        self.stream_id = stream_id
        self.owner: Any = None
        """Whatever whoever opened it, or was told of it, wants to find again."""
        self.receiving = _TO_RECEIVE
        self.sending = _TO_SEND
        self.send_window = send_window
        """Bytes that we may send; below 0 after the peer has lowered its setting (RFC 9113 6.9.2)."""
        self.receive_window = receive_window
        """Bytes that the peer may send."""
        self.credit = 0
        """Given by the owner, and not told the peer yet."""
        self.interims = 0
        """Interim heads that came."""
        self.is_released = False
        """Nobody works on it any more."""
        self.is_blocked = False
        """`send_data` returned False; `StreamWritable` is due."""
        self.unsent: deque[bytes | memoryview] | None = None
        """None until something waits: 624 bytes that most streams never need."""
        self.unsent_bytes = 0
        """Of the body: taken, and not in what `take` gave yet."""
        self.trailers: Any = None
        """What is sent behind the body: (fields, pairs, never_indexed), or None."""
        self.reset_after: int | None = None
        """RST_STREAM with this code follows our end (RFC 9113 8.1)."""
        return self

    @property
    def is_over(self) -> bool:
        """Nothing more goes in either direction."""
        return self.receiving in _OVER and self.sending in _SENT

    def __repr__(self) -> str:
        return (
            f"<Http2Stream {self.stream_id} receiving={self.receiving.name} sending={self.sending.name} "
            f"unsent={self.unsent_bytes}>"
        )
