"""What one worker says to another of an inbound exchange that was cut short: its span id and the reason, 9 bytes.

Many go into one datagram. An empty one says: look again at all that you have attached.
"""

from __future__ import annotations

from binascii import unhexlify
from typing import Final

from sidecar.core.errors import Reason

MOST_IN_A_DATAGRAM: Final = 128
_BYTES: Final = 9
MOST_BYTES: Final = MOST_IN_A_DATAGRAM * _BYTES

_REASONS: Final = tuple(Reason)
_CODES: Final = {reason: code for code, reason in enumerate(_REASONS, start=1)}


def code_of(why: Reason) -> int:
    """From 1 on, below 128; the same in all processes of one version."""
    return _CODES[why]


def reason_of(code: int) -> Reason | None:
    """None for 0, and for what no reason has."""
    return _REASONS[code - 1] if 1 <= code <= len(_REASONS) else None


def notice(span_id: bytes, why: Reason) -> bytes:
    return unhexlify(span_id) + bytes((_CODES[why],))


def read_notices(datagram: bytes) -> list[tuple[bytes, Reason]]:
    """Span ids in hex, with their reasons. What cannot be one is left out."""
    found = []
    for at in range(0, len(datagram) - _BYTES + 1, _BYTES):
        why = reason_of(datagram[at + _BYTES - 1])
        if why is not None:
            found.append((datagram[at : at + _BYTES - 1].hex().encode(), why))
    return found
