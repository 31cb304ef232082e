"""The `Date` of answers that came without one, and of the sidecar's own (RFC 9110 6.6.1)."""

from __future__ import annotations

from time import time

from sidecar.core.http_date import http_date

KEY = b"date"


_from = _until = 0.0
"""The second whose line is at hand. No whole numbers: to compare one with `time()` takes 400 instructions more."""
_line = b""


def line() -> bytes:
    """The field line that says now."""
    now = time()
    return _line if _from <= now < _until else _written(now)  # most answers share theirs


def _written(now: float) -> bytes:
    global _from, _until, _line
    _from = float(int(now))
    _until = _from + 1.0
    _line = b"Date: %b\r\n" % http_date(_from).encode()
    return _line


def value() -> bytes:
    """The same without the field's name."""
    return line()[len(b"Date: ") : -2]
