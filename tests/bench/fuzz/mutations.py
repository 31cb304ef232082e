"""Inputs made of known ones by small changes, from a seed: the same each time. What they reach is not looked at."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tests.bench.fuzz import corpus
from tests.bench.fuzz.targets import Target

_NUMBERS = (
    b"0",
    b"1",
    b"-1",
    b"255",
    b"65536",
    b"4294967296",
    b"9223372036854775807",
    b"18446744073709551616",
    b"1e9",
)


def inputs(target: Target, seed: int) -> Iterator[bytes]:
    """First the known ones as they are, then changed ones without end."""
    known = list(corpus.beginnings(target)) or [b""]
    yield from known
    rng = random.Random(f"{target.name} {seed}")
    while True:
        data = rng.choice(known)
        for _ in range(rng.choice((1, 1, 2, 3, 5))):
            data = changed(rng, data, known, target.words)
        yield data[: target.max_bytes]


def changed(rng: random.Random, data: bytes, known: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One small change."""
    low = rng.randint(0, len(data))
    high = min(len(data), low + rng.choice((0, 1, 1, 2, 4, 16, 64)))
    match rng.randrange(8):
        case 0:  # leave something out
            return data[:low] + data[high:]
        case 1:  # say it twice
            return data[:high] + data[low:high] + data[high:]
        case 2 if words:
            return data[:low] + rng.choice(words) + data[low:]
        case 3 if words:
            return data[:low] + rng.choice(words) + data[high:]
        case 4:
            return data[:low] + bytes((rng.randrange(256),)) + data[low + 1 :]
        case 5:
            other = rng.choice(known)
            return data[:low] + other[rng.randint(0, len(other)) :]
        case 6:
            return data[:low] + rng.choice(_NUMBERS) + data[high:]
        case _:
            return data[:low] + data[low:high].swapcase() + data[high:]
