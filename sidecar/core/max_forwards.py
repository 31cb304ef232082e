"""`Max-Forwards`: how many hops further an OPTIONS or TRACE request may go (RFC 9110 7.6.2).

A client finds out by it which hop of a chain does not answer: with 0 the first one answers itself, with 1 the second.
For all other methods the field means nothing and is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sidecar.core.plain import Field
from sidecar.core.secrets import may_be_secret

METHODS: Final = frozenset({b"OPTIONS", b"TRACE"})
MAX_FORWARDS: Final = 1_000_000
"""A larger number goes on as this one (RFC 9110 7.6.2 allows a recipient its own maximum)."""
MAX_NUMBERS: Final = 16
"""In one value: the field may come only once, so this is generous."""
MAX_ECHOED_NAME_BYTES: Final = 40
"""To judge a name takes 0.3 µs for each byte of it, and a client may send 128 fields."""
ENDS_HERE: Final = -1


def after_hop(method: bytes, value: bytes) -> int | None:
    """Return the number that goes on to the next hop, `ENDS_HERE` if the request must be answered by this one.

    None if nothing is to be changed: for another method, for a value that is no number, and for too many of them. Of
    several numbers (the field came several times, joined by commas) the smallest counts, so the request goes no
    further than any of them allows.
    """
    if method not in METHODS:
        return None
    if value.count(b",") >= MAX_NUMBERS:
        return None
    numbers = [part.strip(b" \t") for part in value.split(b",")]
    if not all(number.isdigit() for number in numbers):
        return None
    return min(map(_bounded, numbers)) - 1


def echo(method: bytes, target: bytes, fields: Iterable[Field], authority: bytes = b"") -> bytes:
    """Return what the last hop of a TRACE sends back: the head of the request, as content of type `message/http`.

    `authority`: the host that no field names, in HTTP/2; else empty.

    Fields whose name tells of a secret are left out, so that a script in a browser cannot learn by TRACE what it is
    not to see (RFC 9110 9.3.8), and those whose name is too long to be judged.
    """
    lines = [
        line
        for key, line, _ in fields
        if len(key) <= MAX_ECHOED_NAME_BYTES and not may_be_secret(key.decode("latin-1"))
    ]
    host = b"Host: %b\r\n" % authority if authority else b""
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method, target, host, b"".join(lines))


def _bounded(digits: bytes) -> int:
    """The number, at most `MAX_FORWARDS` + 1. It may be of any length: `int` refuses more than 4300 digits."""
    digits = digits.lstrip(b"0") or b"0"
    return int(digits) if len(digits) < 7 else min(int(digits[:8]), MAX_FORWARDS + 1)
