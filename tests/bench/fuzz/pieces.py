"""One input as several messages, and one message as the reads in which it may arrive."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from typing import Final

BETWEEN: Final = b"\n~~\n"
"""Between the messages of one input; in no valid HTTP message."""
MAX_MESSAGES: Final = 8
MAX_SINGLE_BYTES: Final = 1500
"""A longer message is not fed byte by byte: the time goes into more inputs instead."""


def messages(data: bytes) -> list[bytes]:
    return data.split(BETWEEN, MAX_MESSAGES - 1)


def cuttings(data: bytes) -> Iterator[list[bytes]]:
    """One of the ways in which a message may be read in pieces; which, its content decides.

    Byte by byte, at a few places, behind its head, or within the end of its head. One for each input: all four would
    take four times as long, and the next input but one is hardly another.
    """
    ways = [_cut_at_random(data)] if len(data) > 2 else []
    if 1 < len(data) <= MAX_SINGLE_BYTES:
        ways.append([data[at : at + 1] for at in range(len(data))])
    end = data.find(b"\r\n\r\n")
    if 0 < end < len(data) - 4:
        ways += [[data[: end + 4], data[end + 4 :]], [data[: end + 2], data[end + 2 :]]]
    if ways:
        yield ways[zlib.crc32(data) % len(ways)]


def _cut_at_random(data: bytes) -> list[bytes]:
    rng = random.Random(zlib.crc32(data))
    places = sorted({rng.randrange(1, len(data)) for _ in range(rng.randint(1, 4))})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
