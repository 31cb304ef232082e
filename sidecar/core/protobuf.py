"""Protobuf's wire format, as far as it is written by hand here (protobuf.dev, "Encoding"). From values to bytes."""

from __future__ import annotations

from typing import Final

LENGTHS: Final = tuple(bytes((n,)) if n < 128 else bytes((n & 127 | 128, n >> 7)) for n in range(16384))
"""Small numbers as `varint` writes them."""


def varint(n: int) -> bytes:
    """A number as protobuf's base-128 integer; negative ones as 64-bit two's complement."""
    if 0 <= n < 16384:
        return LENGTHS[n]
    n &= (1 << 64) - 1
    parts = bytearray()
    while n > 127:
        parts.append(n & 127 | 128)
        n >>= 7
    parts.append(n)
    return bytes(parts)


def field(tag: bytes, payload: bytes) -> bytes:
    """A length-delimited field; `tag` is the field number and wire type, already encoded."""
    size = len(payload)
    return tag + (LENGTHS[size] if size < 16384 else varint(size)) + payload
