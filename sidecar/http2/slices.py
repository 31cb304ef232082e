"""How much of one turn of the loop a connection takes, and how much of a read goes to the codec at once.

Frames cost the codec time even where nothing follows from them: a read of 256 KiB may have 28,000, and a peer that
has had many requests is allowed ten of some kinds for each. So frames are paid for as well as what they tell, out of
the turn of all connections (`transport/turns.py`) and out of the connection's own share in it: who sends most does
not make the others wait behind all that it sends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sidecar.http2.codec import Http2Codec
from sidecar.http2.events import Http2Event

SLICE_BYTES: Final = 32 * 1024
"""Given to the codec at once; between two of them it is asked whether this turn of the loop has time left."""
TINY_SLICE_BYTES: Final = 4 * 1024
"""The same at the beginning, and behind a slice whose frames were tiny: 455 of the smallest, half a millisecond, or a
hundred heads, 2 ms."""
TINY_FRAME_BYTES: Final = 64
"""With its header, on average in a slice."""
FRAME_UNITS: Final = 2
"""What a frame costs of a turn, whatever follows from it."""
DATA_UNITS: Final = 10
"""What a frame of a body costs besides."""
END_UNITS: Final = 100
"""What the end of a response costs, or of a stream before its time: it ends an exchange."""
OTHER_UNITS: Final = 4
"""What any other event costs, but for a head."""


class TurnShare:
    """What one connection may take of a turn of the loop, from `begin` to `end`: it begins anew with each read, and
    each later turn."""

    __slots__ = ("_is_tiny", "_units", "give_back", "left", "take")

    def __init__(self, units: int, take: Callable[[int], int], give_back: Callable[[int], None]) -> None:
        """`units`: all that it may take; `take` takes them from the turn of all, and says how many it got;
        `give_back` returns them."""
        self._units = units
        self.left = 0
        """Units. Whoever works through what came takes off what a thing costs, and begins none where nothing is left:
        a call for each would cost more than many of them. What is begun is ended, so it may fall below 0."""
        self.take = take
        self.give_back = give_back
        self._is_tiny = True
        """The frames of the last slice were, or may be."""

    def begin(self) -> None:
        """Take all that it may have; what is left of it goes back at the end."""
        self.left = self.take(self._units)

    def end(self) -> None:
        """Of the read, or the later turn."""
        left, self.left = self.left, 0
        if left > 0:
            self.give_back(left)
        elif left < 0:
            self.take(-left)  # the last has taken more

    def begin_slices(self) -> None:
        """Of a read that is longer than the smallest. What its frames are like shows its first slice: a large read
        may be full of small heads."""
        self._is_tiny = True

    def cut(self, data: bytes) -> tuple[bytes, bytes]:
        """The next slice, and the rest."""
        size = TINY_SLICE_BYTES if self._is_tiny else SLICE_BYTES
        return (data, b"") if len(data) <= size else (data[:size], data[size:])

    def receive(self, codec: Http2Codec, data: bytes, now: float) -> tuple[Sequence[Http2Event], bytes, bool]:
        """Give the next slice to the codec. Returns what that told, the rest, and whether there is time for it."""
        if len(data) <= TINY_SLICE_BYTES:  # too few frames to be counted
            return codec.receive(data, now), b"", True
        piece, rest = self.cut(data)
        before = codec.load.frames
        told = codec.receive(piece, now)
        return told, rest, self.received(codec.load.frames - before, len(piece))

    def received(self, frames: int, size: int) -> bool:
        """The codec has worked through a slice. Returns whether there is time left for another one."""
        self._is_tiny = frames * TINY_FRAME_BYTES > size
        self.left -= FRAME_UNITS * frames or 1
        return self.left > 0
