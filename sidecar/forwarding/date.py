"""The `Date` of answers that came without one, and of the sidecar's own (RFC 9110 6.6.1)."""

from __future__ import annotations

import time
from email.utils import formatdate

KEY = b"date"


_last: tuple[int, bytes] = (-1, b"")
"""A second and its line."""


def line() -> bytes:
    """The field line that says now."""
    global _last
    second, said = _last
    now = time.time()
    if (
        not second <= now < second + 1
    ):  # most answers share theirs: 0.1 µs less than a look-up by the whole number
        second = int(now)
        said = b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
        _last = second, said
    return said


def value() -> bytes:
    """The same without the field's name."""
    return line()[len(b"Date: ") : -2]
