"""What both directions of HPACK share (RFC 7541): integers, and which fields may enter a table."""

from __future__ import annotations

from typing import Final

MAX_INTEGER: Final = 2**32 - 1
"""Beyond, an integer is malformed (RFC 7541 5.1 asks for a limit)."""
ENTRY_BYTES: Final = 32
"""What an entry of the dynamic table counts beside its name and value (RFC 7541 4.1)."""
TABLE_BYTES: Final = 4096

ALWAYS_NEVER_INDEXED: Final = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"})
"""Sent as literals that no hop may index (RFC 7541 7.1.3)."""

INDEXED: Final = frozenset({
    b":authority", b":method", b":protocol", b":scheme", b":status",
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"accept-ranges",
    b"access-control-allow-credentials", b"access-control-allow-headers", b"access-control-allow-methods",
    b"access-control-allow-origin", b"access-control-expose-headers", b"access-control-max-age",
    b"cache-control", b"content-encoding", b"content-language", b"content-type", b"expect",
    b"grpc-accept-encoding", b"grpc-encoding", b"grpc-status", b"server", b"strict-transport-security", b"te",
    b"user-agent", b"vary", b"via", b"x-content-type-options", b"x-forwarded-host", b"x-forwarded-port",
    b"x-forwarded-proto", b"x-frame-options", b"x-powered-by",
})  # fmt: skip
"""The only names that enter our dynamic table. On a connection that many callers share, the size of one's head would
tell whether another one sent the same value (RFC 7541 7.1): so no name is here whose value is secret, or a guess
worth making, such as a path."""


class MalformedBlock(Exception):
    """A block of fields that cannot be decoded: its connection's tables are lost (RFC 7541 2.3.3, RFC 9113 4.3)."""


def write_integer(value: int, bits: int, pattern: int) -> bytes:
    """`value` behind the leading bits of `pattern`, with a prefix of `bits` (RFC 7541 5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((pattern | value,))
    out = bytearray((pattern | limit,))
    value -= limit
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_integer(block: bytes, position: int, limit: int) -> tuple[int, int]:
    """The rest of an integer whose prefix was all ones (`limit`), and the position behind it.

    Raises: MalformedBlock.
    """
    value = limit
    shift = 0
    end = len(block)
    while position < end:
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if value > MAX_INTEGER:
            break
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 28:
            break
    raise MalformedBlock("an integer in a header block is too large or has no end")


LENGTHS: Final = tuple(write_integer(length, 7, 0) for length in range(2048))
"""How the lengths of usual strings are written, without Huffman."""


def write_string(value: bytes) -> bytes:
    """As it is, behind its length."""
    size = len(value)
    return (LENGTHS[size] if size < 2048 else write_integer(size, 7, 0)) + value
