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
_SENT: Final = (Sending.ENDED, Sending.RESET)


class Http2Stream:
    """Given out by events and by `open_stream`. Others write `owner` and read the rest. `Streams.begin` makes it, and
    sets all but `began_at`, `left` and `method`: the call of an `__init__` takes 800 instructions."""

    __slots__ = (
        "began_at", "credit", "interims", "is_blocked", "is_released", "left", "method", "owner", "receive_window",
        "receiving", "reset_after", "send_window", "sending", "stream_id", "trailers", "unsent", "unsent_bytes",
    )  # fmt: skip

    stream_id: int
    owner: Any
    """Whatever whoever opened it, or was told of it, wants to find again."""
    began_at: float
    """When a client's request had come, in seconds as `receive` was told them; a server sets it."""
    left: int | None
    """Of the body that comes: bytes that `content-length` still promises; None where it promised nothing. Set with
    the head."""
    method: bytes
    """Of the request that a client sent, which sets it: what an answer's `content-length` means depends on it."""
    receiving: Receiving
    sending: Sending
    send_window: int
    """Bytes that we may send; below 0 after the peer has lowered its setting (RFC 9113 6.9.2)."""
    receive_window: int
    """Bytes that the peer may send."""
    credit: int
    """Given by the owner, and not told the peer yet."""
    interims: int
    """Interim heads that came."""
    is_released: bool
    """Nobody works on it any more."""
    is_blocked: bool
    """`send_data` returned False; `StreamWritable` is due."""
    unsent: deque[bytes | memoryview] | None
    """None until something waits: 624 bytes that most streams never need."""
    unsent_bytes: int
    """Of the body: taken, and not in what `take` gave yet."""
    trailers: Any
    """What is sent behind the body: (fields, pairs, never_indexed), or None."""
    reset_after: int | None
    """RST_STREAM with this code follows our end (RFC 9113 8.1)."""

    @property
    def is_over(self) -> bool:
        """Nothing more goes in either direction."""
        return self.receiving in _OVER and self.sending in _SENT

    def __repr__(self) -> str:
        return (
            f"<Http2Stream {self.stream_id} receiving={self.receiving.name} sending={self.sending.name} "
            f"unsent={self.unsent_bytes}>"
        )
