"""Reads a chunked body (RFC 9112 7.1) strictly: bytes in; body bytes and trailer fields out.

It is used on both sides instead of llhttp's reader, for three reasons. It ends at the exact byte where the message
ends, so what a client has pipelined behind it stays bytes. The caller bounds the work of one turn of the loop. And
what one read brings is handed on joined: a body of one-byte chunks costs the next hop one write for each read.

It is never more lenient than llhttp in strict mode (`tests/core/test_chunked.py` compares them), and stricter where
that is simpler: a chunk extension needs a name and, behind `=`, a value; `Content-Length` and `Transfer-Encoding`
among the trailers are malformed in both directions. Which other trailer fields are passed on is decided elsewhere
(`core/headers.py`), and so is what `Connection: close` among them means.

It knows nothing of heads, of sockets and of time. Owner: the connection whose message is read, on the loop's thread.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.core.plain import TOKEN_BYTES, VALUE_BYTES, Field

MAX_SIZE_DIGITS: Final = 15
"""Without leading zeros. So a size stays below 2**60, and no sum of two leaves 64 bits."""
MAX_SIZE_LINE_BYTES: Final = 4096
"""A chunk's size and its extensions. Nobody uses those: they are checked and dropped (RFC 9112 7.1.1)."""
MAX_TRAILERS: Final = 256
MAX_TRAILER_BYTES: Final = 65_536
FREE_FRAMING_BYTES: Final = 1_048_576
"""So many bytes of size lines, ends of chunks and trailers are read, however little body they frame."""
FRAMING_PER_BODY_BYTE: Final = 4
"""Beyond the free ones. A chunk of one byte has 5 bytes of framing; chunks of two bytes have 2.5 for each byte."""

_CRLF: Final = b"\r\n"
_HEX: Final = b"0123456789abcdefABCDEF"
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~])*"'
_DIGITS: Final = rb"(?=[0-9A-Fa-f])0*+([1-9A-Fa-f][0-9A-Fa-f]{0,%d})?" % (MAX_SIZE_DIGITS - 1)
_SIZE_LINE: Final = re.compile(rb"%b(?:;%b(?:=(?:%b|%b))?)*" % (_DIGITS, _TOKEN, _TOKEN, _QUOTED))
"""No alternative begins with a byte that another one begins with, so a line is matched in linear time."""
_BEGUN_SIZE_LINE: Final = re.compile(rb"%b(?:;[\t -~\x80-\xff]*)?\r?" % _DIGITS)
"""What may still become a size line. Anything else is refused at once, not when its end comes."""

_known_sizes: dict[bytes, int] = {}
"""Lines of one or two digits, so 506 at most: small chunks are many, and 0.2 µs of 0.5 go this way."""

# What comes next. Plain integers: they are compared several times for each read, and members of an enum cost more.
_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILER: Final = 3
_DONE: Final = 4


class MalformedChunk(Exception):
    """The text says what is wrong. Nothing behind it can be read, since where the message ends is unknown."""


class TooLarge(MalformedChunk):
    """A size line or the trailer section is beyond its limit (431 to a client, where 400 is for the others)."""


class ChunkedBody:
    """One chunked body, from the byte behind the head to the byte behind the trailer section."""

    __slots__ = (
        "_left", "_part", "_phase", "_trailer_bytes", "body_bytes", "framing_bytes", "is_done", "max_trailer_bytes",
        "max_trailers", "pieces", "trailers",
    )  # fmt: skip

    def __init__(self, max_trailers: int = MAX_TRAILERS, max_trailer_bytes: int = MAX_TRAILER_BYTES) -> None:
        self.max_trailers = max_trailers
        self.max_trailer_bytes = max_trailer_bytes
        """Each line counts with its CRLF, the empty line at the end included."""
        self.pieces: list[bytes] = []
        """Bytes of the body that were read since the last `take`."""
        self.trailers: list[Field] = []
        self.body_bytes = 0
        self.framing_bytes = 0
        """All that was read and is not body."""
        self.is_done = False
        """The last chunk and the trailer section were read."""
        self._phase = _SIZE
        self._left = 0
        """How much of the present chunk is still to come, in bytes."""
        self._part = b""
        """A line that has begun, or the first byte of the CRLF behind a chunk."""
        self._trailer_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Of a line that has begun, and of the trailers so far."""
        return self._trailer_bytes + len(self._part)

    def take(self) -> bytes:
        """Return the body bytes that were read since the last call, and forget them."""
        pieces = self.pieces
        if not pieces:
            return b""
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return taken

    def feed(self, data: bytes, start: int, most_chunks: int) -> int:
        """Read `data` from `start` on, and return the offset up to which it was read.

        At most `most_chunks` chunks (at least 1) are begun. So an offset before the end of `data` means that the body
        is done, or that so many chunks were read and the next call goes on from there. Once the body is done, nothing
        more is read.

        Raises:
            MalformedChunk: the bytes are no chunked body, or beyond a limit. What was read so far is in `pieces`;
                the body is not to be fed again.
        """
        body = self.body_bytes
        at = start
        if self._phase != _SIZE or self._part:
            at = self._resume(data, at)
        if self._phase == _SIZE and at < len(data):
            at = self._read_chunks(data, at, most_chunks)
        if self._phase == _TRAILER and at < len(data):
            at = self._read_trailers(data, at)
        self.framing_bytes = framing = self.framing_bytes + at - start - (self.body_bytes - body)
        if framing > FREE_FRAMING_BYTES and framing > FRAMING_PER_BODY_BYTE * self.body_bytes:
            raise MalformedChunk("more framing than body")
        return at

    def _read_chunks(self, data: bytes, at: int, most_chunks: int) -> int:
        """Read whole chunks and the begin of the next one. One loop without calls, since a chunk may be one byte."""
        pieces = self.pieces
        known_size = _known_sizes.get
        body = 0
        end = len(data)
        while at < end and most_chunks > 0:
            most_chunks -= 1
            line_end = data.find(_CRLF, at, at + MAX_SIZE_LINE_BYTES + 2)
            if line_end < 0:
                self._keep_size_line(data[at : at + MAX_SIZE_LINE_BYTES + 2])
                at = end
                break
            line = data[at:line_end]
            size = known_size(line)
            if size is None:
                size = _size_of(line)
            at = line_end + 2
            if not size:
                self._phase = _TRAILER
                break
            stop = at + size
            if data[stop : stop + 2] != _CRLF:
                self._phase = _DATA
                self._left = size
                at = self._read_data(data, at)
                break
            pieces.append(data[at:stop])
            body += size
            at = stop + 2
        self.body_bytes += body
        return at

    def _resume(self, data: bytes, at: int) -> int:
        """Go on with the size line or the chunk that an earlier read has begun."""
        if self._phase == _SIZE:
            at = self._end_size_line(data, at)
        if self._phase == _DATA or self._phase == _DATA_END:
            at = self._read_data(data, at)
        return at

    def _end_size_line(self, data: bytes, at: int) -> int:
        part = self._part
        line = part + data[at : at + MAX_SIZE_LINE_BYTES + 2 - len(part)]
        line_end = line.find(_CRLF)
        if line_end < 0:
            self._keep_size_line(line)
            return len(data)
        self._part = b""
        self._left = _size_of(line[:line_end])
        self._phase = _DATA if self._left else _TRAILER
        return at + line_end + 2 - len(part)

    def _keep_size_line(self, line: bytes) -> None:
        if not _BEGUN_SIZE_LINE.fullmatch(line):
            raise MalformedChunk("malformed chunk size")
        if len(line) > MAX_SIZE_LINE_BYTES + 1:
            raise TooLarge(f"chunk extensions beyond {MAX_SIZE_LINE_BYTES} bytes")
        self._part = line

    def _read_data(self, data: bytes, at: int) -> int:
        """Read what there is of the present chunk, and of the CRLF behind it."""
        if self._phase == _DATA:
            # A whole piece as it is: a compiled slice is a copy, be it of everything.
            piece = data[at : at + self._left] if at or len(data) > self._left else data
            if piece:
                self.pieces.append(piece)
                self.body_bytes += len(piece)
                self._left -= len(piece)
                at += len(piece)
            if self._left:
                return at
            self._phase = _DATA_END
        line_end = self._part + data[at : at + 2 - len(self._part)]
        if not _CRLF.startswith(line_end):
            raise MalformedChunk("no CRLF behind a chunk")
        at += len(line_end) - len(self._part)
        self._part = line_end
        if line_end == _CRLF:
            self._part = b""
            self._phase = _SIZE
        return at

    def _read_trailers(self, data: bytes, at: int) -> int:
        """Read lines up to the empty one that ends the message."""
        checked = len(self._part)
        shift = 0
        if checked:
            shift = at - checked
            data = self._part + data[at : at + self.max_trailer_bytes]
            at = 0
            self._part = b""
        while not self.is_done:
            room = self.max_trailer_bytes - self._trailer_bytes
            line_end = data.find(_CRLF, at, at + room)
            if line_end < 0:
                if len(data) - at >= room:
                    raise TooLarge(f"trailers beyond {self.max_trailer_bytes} bytes")
                self._keep_trailer(data[at:], checked)
                return len(data) + shift
            checked = 0
            self._trailer_bytes += line_end + 2 - at
            if line_end > at:
                self._add_trailer(data[at:line_end])
            else:
                self._phase = _DONE
                self.is_done = True
            at = line_end + 2
        return at + shift

    def _keep_trailer(self, line: bytes, checked: int) -> None:
        """Keep a line that has begun, unless it can't become a field.

        Its first `checked` bytes are not looked at again, but for the last of them: behind a CR only LF may stand.
        """
        fresh = line[checked - 1 :] if checked else line
        odd = fresh.translate(None, VALUE_BYTES)
        if line[:1] in (b" ", b"\t", b":") or (odd and not (odd == b"\r" and fresh.endswith(b"\r"))):
            raise MalformedChunk("malformed trailer field")
        self._part = line

    def _add_trailer(self, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or not name or name.translate(None, TOKEN_BYTES) or value.translate(None, VALUE_BYTES):
            raise MalformedChunk("malformed trailer field")
        key = name.lower()
        if key in _FRAMING:
            raise MalformedChunk(f"{key.decode()} among the trailers")
        if len(self.trailers) >= self.max_trailers:
            raise TooLarge(f"more than {self.max_trailers} trailer fields")
        self.trailers.append((key, b"%b: %b\r\n" % (name, value), value))


def _size_of(line: bytes) -> int:
    """Return the size that a line without its CRLF gives.

    Raises:
        MalformedChunk: it is none.
    """
    if 0 < len(line) <= MAX_SIZE_DIGITS and not line.translate(None, _HEX):
        size = int(line, 16)
        if len(line) <= 2:
            _known_sizes[line] = size
        return size
    match = _SIZE_LINE.fullmatch(line)
    if match is None:
        has_size = _BEGUN_SIZE_LINE.fullmatch(line.partition(b";")[0])
        raise MalformedChunk(f"malformed chunk {'extension' if has_size and b';' in line else 'size'}")
    return int(match[1] or b"0", 16)
