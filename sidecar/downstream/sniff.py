"""What a client speaks, by its first bytes (SPEC-PROTOCOLS 14, detection).

HTTP/2 by all 24 bytes of its preface (RFC 9113 3.4), which no request of HTTP/1.1 begins with. Where anything may
come, HTTP/1.1 is what has a first line that ends in its version, and TLS what begins with a ClientHello.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from sidecar.core.plain import TOKEN_BYTES
from sidecar.core.snapshot import HttpVersion
from sidecar.http2.preface import PREFACE
from sidecar.transport.tls.hello import MAX_HELLO_BYTES, HelloReader, HelloTooLong, NotTls

_REQUEST_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} [!-~]+ HTTP/1\.[0-9]\r?")
_MAX_METHOD_BYTES: Final = 32
_HANDSHAKE: Final = 0x16
"""The first byte of a record of TLS that is part of a handshake (RFC 8446 5.1)."""


class Sniffed(Enum):
    """What the first bytes are."""

    HTTP1 = auto()
    """Or nothing that is known here: its reader says what is wrong with it."""
    HTTP2 = auto()
    UNDECIDED = auto()
    """The beginning of a preface."""


def sniff(data: bytes, protocol: HttpVersion) -> Sniffed:
    """`protocol` is what the listener speaks. One that speaks HTTP/2 alone takes everything for it, and its codec
    says what is wrong with the rest."""
    if protocol is HttpVersion.HTTP2:
        return Sniffed.HTTP2
    if protocol is HttpVersion.HTTP1 or data[:3] != PREFACE[:3][: len(data)]:
        return Sniffed.HTTP1
    if data[: len(PREFACE)] == PREFACE:
        return Sniffed.HTTP2
    return Sniffed.UNDECIDED if PREFACE.startswith(data) else Sniffed.HTTP1


class Detected(Enum):
    """What the first bytes of a connection are that may carry anything."""

    HTTP1 = auto()
    HTTP2 = auto()
    TLS = auto()
    OTHER = auto()
    UNDECIDED = auto()
    """More of them are needed."""


class FirstBytes:
    """Takes them as they come, until they are enough."""

    __slots__ = ("_data", "_hello", "server_name")

    def __init__(self) -> None:
        self._data = b""
        self._hello: HelloReader | None = None
        self.server_name = ""
        """That a TLS client asks for; empty where it names none."""

    def feed(self, data: bytes) -> Detected:
        if self._hello is not None:
            return self._read_hello(self._hello, data)
        self._data += data
        if self._data[:1] and self._data[0] == _HANDSHAKE:
            self._hello = HelloReader()
            return self._read_hello(self._hello, self._data)
        return _of_http(self._data)

    def _read_hello(self, reader: HelloReader, data: bytes) -> Detected:
        try:
            hello = reader.feed(data)
        except (NotTls, HelloTooLong):
            return Detected.OTHER
        if hello is None:
            return Detected.UNDECIDED
        self.server_name = hello.server_name
        return Detected.TLS


def _of_http(data: bytes) -> Detected:
    if PREFACE.startswith(data[: len(PREFACE)]):
        return Detected.HTTP2 if len(data) >= len(PREFACE) else Detected.UNDECIDED
    line, end, _ = data.partition(b"\n")
    if end:
        return Detected.HTTP1 if _REQUEST_LINE.fullmatch(line) else Detected.OTHER
    method, space, _ = line.partition(b" ")
    is_token = bool(method) and len(method) <= _MAX_METHOD_BYTES and not method.translate(None, TOKEN_BYTES)
    may_be = is_token and (space or len(data) <= _MAX_METHOD_BYTES) and len(data) < MAX_HELLO_BYTES
    return Detected.UNDECIDED if may_be else Detected.OTHER
