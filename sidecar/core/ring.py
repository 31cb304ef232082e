"""Consistent hashing: a ring of points, on which each endpoint has as many as its weight says.

A key belongs to the endpoint of the next point. What comes and goes changes the owner of its own keys alone. Points
are blake2b of address and port, so that all processes and replicas of one configuration send a key to the same
endpoint.
Who is usable is not asked here: the ring stays as it is, and who looks a key up goes on to the next point.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping
from hashlib import blake2b
from struct import Struct
from typing import Final

POINTS: Final = 160
"""Of an endpoint of middle weight: with these, shares differ by about 8 % (1 ÷ √160)."""
MOST_MEMBERS: Final = 1 << 20
_NUMBER: Final = MOST_MEMBERS - 1
"""The low bits of a point say whose it is, the others where it lies: one number for both halves the memory."""
_BLOCK: Final = Struct(">8Q")
"""One digest gives eight points."""
MEMBERS_IN_STEP: Final = 8
"""Between two pauses, about a quarter of a millisecond."""


class Ring:
    """Made by `build`; never changes."""

    __slots__ = ("_points", "members", "names")

    def __init__(self, members: Mapping[str, int], points: array[int]) -> None:
        self.members = members
        """Each endpoint's weight."""
        self.names = tuple(sorted(members))
        """The endpoints, by the numbers that `owner` gives."""
        self._points = points

    def __len__(self) -> int:
        return len(self._points)

    def find(self, key: int) -> int:
        """The place of a key: the number of the point that it belongs to."""
        found = bisect_left(self._points, key & ~_NUMBER)
        return found if found < len(self._points) else 0

    def owner(self, place: int) -> int:
        """Whose the point is, as a number in `names`. `place` goes round."""
        return self._points[place % len(self._points)] & _NUMBER


def key_of(value: bytes) -> int:
    """A value's place: 64 bits."""
    return int.from_bytes(blake2b(value, digest_size=8).digest(), "big")


def build(members: Mapping[str, int], pause: Callable[[], None] = lambda: None) -> Ring:
    """A ring of endpoints (`address:port`) by weight; 0 counts as 1.

    1,000 endpoints take a few tenths of a second: `pause` is called between steps, for a thread to let others go on.
    No step is long: what is sorted is sorted in 256 parts.

    Raises: ValueError, for more endpoints than there are numbers.
    """
    if len(members) > MOST_MEMBERS:
        raise ValueError(f"{len(members)} endpoints are too many for one ring: at most {MOST_MEMBERS}")
    weights = {name: max(members[name], 1) for name in sorted(members)}
    usual = POINTS * len(weights) / max(sum(weights.values()), 1)
    parts: list[list[int]] = [[] for _ in range(256)]
    for number, (name, weight) in enumerate(weights.items()):
        _add_points(parts, name.encode(), number, max(round(usual * weight), 1))
        if number % MEMBERS_IN_STEP == 0:
            pause()
    points = array("Q")
    for part in parts:
        part.sort()
        points.extend(part)
        pause()
    return Ring(members, points)


def _add_points(parts: list[list[int]], name: bytes, number: int, count: int) -> None:
    for block in range(0, count, 8):
        digest = blake2b(b"%b#%d" % (name, block), digest_size=64).digest()
        for point in _BLOCK.unpack(digest)[: count - block]:
            parts[point >> 56].append(point & ~_NUMBER | number)
