"""A head that comes in several reads: kept as bytes, once, until it is whole.

Decides where it ends, and refuses early what cannot become a head. Used by both ends of the data path; sans-I/O.
"""

from __future__ import annotations

from typing import Final

from sidecar.http1.llhttp import HEAD_END, RESPONSE_BEGINS, MalformedHead, Scout

MAX_METHOD_BYTES: Final = 32
_MAX_BEGIN_BYTES: Final = max(map(len, RESPONSE_BEGINS))


class UnfinishedHead:
    """The bytes of one head so far."""

    __slots__ = ("_bytes", "_is_request", "_looked", "_scout")

    def __init__(self, *, is_request: bool) -> None:
        self._bytes = bytearray()
        self._is_request = is_request
        self._scout: Scout | None = None
        self._looked = 0

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
        end = self._bytes.find(HEAD_END, max(before - 3, 0))
        if end < 0:
            self._look(len(self._bytes))
            return None
        end += len(HEAD_END)
        del self._bytes[end:]
        self._look(end)
        return end - before

    @property
    def first_line(self) -> bytes | None:
        """The request or status line, once it is whole."""
        end = self._bytes.find(b"\r\n")
        return None if end < 0 else bytes(self._bytes[:end])

    def whole(self) -> bytes:
        """What was taken; the head, once `add` has said so."""
        return bytes(self._bytes)

    def _look(self, end: int) -> None:
        start = self._looked
        if not start:
            first = self._bytes.find(b"\r\n")
            if first < 0:
                self._check_first_line()
                return
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

    def _check_first_line(self) -> None:
        if b"\n" in self._bytes or b"\r" in self._bytes[:-1]:
            raise MalformedHead("a line that does not end in CRLF")
        if self._is_request and not _may_begin_request(self._bytes):
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
