"""The `Date` of answers that came without one, and of the sidecar's own (RFC 9110 6.6.1)."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache

KEY = b"date"


def line() -> bytes:
    """The field line that says now."""
    return _line(int(time.time()))


def value() -> bytes:
    """The same without the field's name."""
    return line()[len(b"Date: ") : -2]


@lru_cache(maxsize=1)
def _line(second: int) -> bytes:
    return b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
