"""Protobuf's wire format, as far as it is written by hand here (protobuf.dev, "Encoding"). From values to bytes."""

from __future__ import annotations

from typing import Final

LENGTHS: Final = tuple(bytes((n,)) if n < 128 else bytes((n & 127 | 128, n >> 7)) for n in range(2048))
"""Small numbers as `varint` writes them: all that two bytes can say would take 0.8 MiB, and larger ones are rare."""


def varint(n: int) -> bytes:
    """A number as protobuf's base-128 integer; negative ones as 64-bit two's complement."""
    if 0 <= n < 2048:
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
    return tag + (LENGTHS[size] if size < 2048 else varint(size)) + payload
