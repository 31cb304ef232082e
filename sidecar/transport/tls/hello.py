"""The first message of a TLS client (RFC 8446 4.1.2), read as far as a listener needs it: the name that it asks for,
and the protocols that it offers.

By the name the listener chooses a context before OpenSSL sees a byte, so that no context is ever changed within a
handshake. Whether the rest of the message is sound is OpenSSL's to say: what is malformed here is a message without
a name.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.dataclass import dataclass

MAX_HELLO_BYTES: Final = 16 * 1024
"""Of the message, with the headers of its records. Clients with keys of post-quantum algorithms send about 2 KB."""

_HANDSHAKE_RECORD: Final = 22
_CLIENT_HELLO: Final = 1
_RECORD_HEAD_BYTES: Final = 5
_MAX_RECORD_BYTES: Final = 2**14
_MESSAGE_HEAD_BYTES: Final = 4
_FIXED_BYTES: Final = 2 + 32
"""Version and random."""
_SERVER_NAME: Final = 0
_ALPN: Final = 16
_MAX_PROTOCOLS: Final = 64
"""Of which the rest is not looked at."""
_HOST_NAME: Final = 0
_MAX_NAME_BYTES: Final = 255


class NotTls(Exception):
    """The bytes begin no TLS connection; the text says what they are instead."""


class HelloTooLong(Exception):
    """The message is longer than `MAX_HELLO_BYTES`."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client asks for."""

    server_name: str = ""
    """Lower-case, without a dot at its end (RFC 6066 3); empty where it names none."""
    protocols: frozenset[str] = frozenset()
    """Offered by ALPN (RFC 7301); empty where it offers none, and takes any."""


class HelloReader:
    """Takes the bytes of one connection as they come. Each is looked at once, however small the pieces are."""

    __slots__ = ("_at", "_message", "raw")

    def __init__(self) -> None:
        self.raw = bytearray()
        """All that has come, for whoever does the handshake."""
        self._message = bytearray()
        self._at = 0
        """Where the next record begins."""

    def feed(self, data: bytes) -> ClientHello | None:
        """The message; None while it is not whole.

        Raises:
            NotTls: something else begins here.
            HelloTooLong: it says that it will be longer than `MAX_HELLO_BYTES`, or is already.
        """
        raw, message = self.raw, self._message
        raw += data
        while self._at < MAX_HELLO_BYTES:
            head = bytes(raw[self._at : self._at + _RECORD_HEAD_BYTES])
            _check_record(head, is_first=self._at == 0)
            if len(head) < _RECORD_HEAD_BYTES:
                break
            size = int.from_bytes(head[3:5])
            if not 0 < size <= _MAX_RECORD_BYTES:
                raise NotTls("a record of TLS with an impossible length")
            start = self._at + _RECORD_HEAD_BYTES
            if len(raw) < start + size:
                break
            self._at = start + size
            message += raw[start : self._at]
            wanted = _wanted_bytes(message)
            if wanted is not None and len(message) >= wanted:
                return _read(bytes(message[_MESSAGE_HEAD_BYTES:wanted]))
        if len(raw) >= MAX_HELLO_BYTES:
            raise HelloTooLong()
        return None


def _check_record(head: bytes, *, is_first: bool) -> None:
    if not head:
        return
    if head[0] != _HANDSHAKE_RECORD or (len(head) > 1 and head[1] != 3):
        raise NotTls(
            _what_it_is(head) if is_first else "another record of TLS in the midst of the first message"
        )


def _what_it_is(head: bytes) -> str:
    is_text = all(32 < byte < 127 or byte == 32 for byte in head)
    return "plain HTTP" if is_text else "no handshake of TLS"


def _wanted_bytes(message: bytearray) -> int | None:
    """How long the whole message is, with its head; None while that is not known."""
    if message and message[0] != _CLIENT_HELLO:
        raise NotTls("a message of TLS that no connection begins with")
    if len(message) < _MESSAGE_HEAD_BYTES:
        return None
    wanted = _MESSAGE_HEAD_BYTES + int.from_bytes(message[1:4])
    if wanted > MAX_HELLO_BYTES:
        raise HelloTooLong()
    return wanted


def _read(body: bytes) -> ClientHello:
    name, protocols = "", frozenset[str]()
    at = _FIXED_BYTES
    for length_bytes in (1, 2, 1):  # session id, cipher suites, compression methods
        at += length_bytes + int.from_bytes(body[at : at + length_bytes])
    end = min(at + 2 + int.from_bytes(body[at : at + 2]), len(body))
    at += 2
    while at + 4 <= end:  # extensions, a dozen of them: without a call for each
        kind = body[at] << 8 | body[at + 1]
        start = at + 4
        at = start + (body[at + 2] << 8 | body[at + 3])
        if kind == _SERVER_NAME and not name:
            name = _host_name(body[start:at])
        elif kind == _ALPN and not protocols:
            protocols = _offered(body[start:at])
    return ClientHello(name, protocols)


def _offered(extension: bytes) -> frozenset[str]:
    found: list[str] = []
    at = 2
    while at < len(extension) and len(found) < _MAX_PROTOCOLS:
        size = extension[at]
        found.append(extension[at + 1 : at + 1 + size].decode("latin-1"))
        at += 1 + size
    return frozenset(found)


def _host_name(extension: bytes) -> str:
    """The list has one entry in practice, and may have one of each kind (RFC 6066 3)."""
    if len(extension) < 5 or extension[2] != _HOST_NAME:
        return ""
    size = int.from_bytes(extension[3:5])
    name = extension[5 : 5 + size]
    if len(name) != size or not 0 < size <= _MAX_NAME_BYTES:
        return ""
    try:
        return name.decode("ascii").lower().rstrip(".")
    except UnicodeDecodeError:
        return ""
