"""A head that comes in several reads: kept as bytes, once, until it is whole.

Decides where it ends, and refuses early what cannot become a head. Used by both ends of the data path; sans-I/O.
"""

from __future__ import annotations

from typing import Final

from sidecar.http1.llhttp import HEAD_END, RESPONSE_BEGINS, MalformedHead, Scout

MAX_METHOD_BYTES: Final = 32
_MAX_BEGIN_BYTES: Final = max(map(len, RESPONSE_BEGINS))


class UnfinishedHead:
    """The bytes of one head so far.

    A client may send them one by one, so nothing here looks at all of them again with each read: 60 KB byte by byte
    would be 4 GB to go over.
    """

    __slots__ = ("_bytes", "_first_line", "_is_request", "_looked", "_scout", "is_line_checked", "line_ends")

    def __init__(self, *, is_request: bool) -> None:
        self._bytes = bytearray()
        self._is_request = is_request
        self._scout: Scout | None = None
        self._looked = 0
        self._first_line: bytes | None = None
        self.line_ends = 0
        """How many lines have ended, the first one included."""
        self.is_line_checked = False
        """For whoever judges the first line: it has done so."""

    def __len__(self) -> int:
        return len(self._bytes)

    def add(self, data: bytes) -> int | None:
        """Take the next bytes. Returns how many of them the head has used when it is whole, else None.

        Raises:
            MalformedHead: it can never become a head.
        """
        before = len(self._bytes)
        self._bytes += data
        if not self._is_request and before < _MAX_BEGIN_BYTES:
            _check_begin(bytes(self._bytes[:_MAX_BEGIN_BYTES]))
        # From the last byte on, which may be the CR of a line that ends now.
        self.line_ends += self._bytes.count(b"\r\n", max(before - 1, 0))
        if self.line_ends and self._first_line is None:
            self._first_line = bytes(self._bytes[: self._bytes.index(b"\r\n", max(before - 1, 0))])
        end = self._bytes.find(HEAD_END, max(before - 3, 0))
        if end < 0:
            self._look(len(self._bytes), before)
            return None
        end += len(HEAD_END)
        del self._bytes[end:]
        self._look(end, before)
        return end - before

    @property
    def first_line(self) -> bytes | None:
        """The request or status line, once it is whole."""
        return self._first_line

    @property
    def begun_target_bytes(self) -> int:
        """Of a request whose first line is not whole yet: how long its target is so far."""
        begin = self._bytes.find(b" ", 0, MAX_METHOD_BYTES + 1)
        end = self._bytes.find(b" ", begin + 1)
        return 0 if begin < 0 else (len(self._bytes) if end < 0 else end) - begin - 1

    def whole(self) -> bytes:
        """What was taken; the head, once `add` has said so."""
        return bytes(self._bytes)

    def _look(self, end: int, before: int) -> None:
        start = self._looked
        if not start:
            line = self._first_line
            if line is None:
                self._check_first_line(max(before - 1, 0))
                return
            first = len(line)
            if self._is_request:
                self._scout = Scout(is_request=True)
                # Method and version are not llhttp's to judge: it knows some methods and three versions alone.
                self._scout.look(b"GET / HTTP/1.1\r\n")
                start = first + 2
            else:
                self._scout = Scout(is_request=False)
        if self._scout is not None and end > start:
            self._scout.look(bytes(self._bytes[start:end]))
        self._looked = end

    def _check_first_line(self, start: int) -> None:
        """What came from `start` on; of what was there before it is known to be sound."""
        size = len(self._bytes)
        if self._bytes.find(b"\n", start) >= 0 or self._bytes.find(b"\r", start, size - 1) >= 0:
            raise MalformedHead("a line that does not end in CRLF")
        if self._is_request and start <= MAX_METHOD_BYTES and not _may_begin_request(self._bytes):
            raise MalformedHead("Invalid method encountered")


_NOT_IN_METHODS = bytes(
    byte
    for byte in range(256)
    if byte not in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)


def _may_begin_request(line: bytearray) -> bool:
    method = bytes(line[: MAX_METHOD_BYTES + 1]).partition(b" ")[0]
    return 0 < len(method) <= MAX_METHOD_BYTES and method.translate(None, _NOT_IN_METHODS) == method


def _check_begin(begin: bytes) -> None:
    """Raises: MalformedHead, if no response begins so."""
    if not any(one.startswith(begin) or begin.startswith(one) for one in RESPONSE_BEGINS):
        raise MalformedHead("Expected HTTP/")
