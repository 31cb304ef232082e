"""Where TLS records end in what is given to OpenSSL, and how many of them brought no data.

A change of keys costs 33 µs (SHA-384, OpenSSL 3.0) and its sender 27 bytes, and OpenSSL works through all that it is
given in one call. So it is given no more records at a time than may bring nothing: 100, and 10 more a second, as
SETTINGS and PING of HTTP/2 (SPEC-PROTOCOLS 12). Tickets and warnings count too: each is a record without data. Pure.
"""

from __future__ import annotations

from typing import Final

BARREN_BURST: Final = 100
"""Records without data that may come at once."""
BARREN_RATE: Final = 10.0
"""And so many a second."""
FEED_BYTES: Final = 32 * 1024
"""Given to OpenSSL at a time: its buffer keeps the size that it once had."""
_HEADER_BYTES: Final = 5
"""Of a record: type, version, two bytes of length (RFC 8446 5.1)."""


class Records:
    """Those of one direction of one connection, from the beginning of a record on."""

    __slots__ = ("_allowed", "_head", "_left", "_settled_at", "given")

    def __init__(self) -> None:
        self.given = 0
        """Whole records that OpenSSL has, and of which it is not known whether they bring data."""
        self._left = 0
        """Bytes of the present record that are to come; 0: its header is."""
        self._head = b""
        """What has come of a header that is not whole."""
        self._allowed = float(BARREN_BURST)
        self._settled_at: float | None = None

    def cut(self, data: bytes) -> int:
        """How many bytes of `data` OpenSSL may have now: at least one. They count as given."""
        size = min(len(data), FEED_BYTES)
        if (
            not self._left
            and not self._head
            and size > _HEADER_BYTES
            and size - _HEADER_BYTES == _body_bytes(data)
        ):
            self.given += 1  # as mostly: one record, whole
            return size
        most = max(1, int(self._allowed))
        position = count = 0
        while position < size and count < most:
            if not self._left:
                end = min(size, position + _HEADER_BYTES - len(self._head))
                head, position = self._head + data[position:end], end
                if len(head) < _HEADER_BYTES:
                    self._head = head
                    break
                self._head, self._left = b"", _body_bytes(head)
            step = min(self._left, size - position)
            position += step
            self._left -= step
            if not self._left:
                count += 1
        self.given += count
        return position

    def brought(self, number: int) -> None:
        """So many of them have brought data."""
        self.given -= number

    def is_settled(self, brought: int, now: float) -> bool:
        """OpenSSL has read all that it was given, and `brought` of that had data. Returns whether the rest may be."""
        if self._settled_at is not None:
            self._allowed = min(BARREN_BURST, self._allowed + (now - self._settled_at) * BARREN_RATE)
        self._settled_at = now
        self._allowed -= self.given - brought
        self.given = 0
        return self._allowed >= 0


def _body_bytes(header: bytes) -> int:
    return header[3] << 8 | header[4]
