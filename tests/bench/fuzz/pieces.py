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
    """The ways in which a message is read in pieces: byte by byte, and at a few places that its content decides."""
    if 1 < len(data) <= MAX_SINGLE_BYTES:
        yield [data[at : at + 1] for at in range(len(data))]
    if len(data) > 2:
        yield _cut_at_random(data)
    end = data.find(b"\r\n\r\n")
    if 0 < end < len(data) - 4:
        yield [data[: end + 4], data[end + 4 :]]
        yield [data[: end + 2], data[end + 2 :]]


def _cut_at_random(data: bytes) -> list[bytes]:
    rng = random.Random(zlib.crc32(data))
    places = sorted({rng.randrange(1, len(data)) for _ in range(rng.randint(1, 4))})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
