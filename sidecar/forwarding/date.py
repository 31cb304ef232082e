"""The `Date` of answers that came without one, and of the sidecar's own (RFC 9110 6.6.1)."""

from __future__ import annotations

import time
from typing import Final

from sidecar.core.http_date import http_date

KEY: Final = b"date"


class _Line:
    """The one that is at hand, and its second."""

    __slots__ = ("since", "text", "until")

    def __init__(self) -> None:
        self.text = b""
        self.since = self.until = 0.0
        """No whole numbers: to compare one with `time()` takes 400 instructions more."""


_line: Final = _Line()
_now: Final = time.time


def line() -> bytes:
    """The field line that says now."""
    now, at_hand = _now(), _line
    if at_hand.since <= now < at_hand.until:  # most answers share theirs
        return at_hand.text
    return _written(now)


def _written(now: float) -> bytes:
    at_hand = _line
    at_hand.since = float(int(now))
    at_hand.until = at_hand.since + 1.0
    at_hand.text = b"Date: %b\r\n" % http_date(at_hand.since).encode()
    return at_hand.text


def value() -> bytes:
    """The same without the field's name."""
    return line()[len(b"Date: ") : -2]
