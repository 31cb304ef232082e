"""The `Date` of answers that came without one, and of the sidecar's own (RFC 9110 6.6.1)."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache

KEY = b"date"


def line() -> bytes:
    """The field line that says now."""
    return _line(int(time.time()))


@lru_cache(maxsize=1)
def _line(second: int) -> bytes:
    return b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
