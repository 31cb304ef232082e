"""What a hop must know of WebSocket's handshake to carry it from one HTTP version to another.

In HTTP/1.1 it is an upgrade with a key that the server answers (RFC 6455 4), in HTTP/2 an extended CONNECT without
one (RFC 8441 5). Everything else in it is the two ends' affair.
"""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from hashlib import sha1
from typing import Final

WEBSOCKET: Final = b"websocket"
KEY: Final = b"sec-websocket-key"
ACCEPT: Final = b"sec-websocket-accept"
KEY_BYTES: Final = 16
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 1.3."""


def is_among(protocols: bytes) -> bool:
    """Whether a value of `Upgrade` names WebSocket."""
    return any(protocol.strip(b" \t").lower() == WEBSOCKET for protocol in protocols.split(b","))


def new_key() -> bytes:
    """For a handshake of our own; nobody can foresee it (RFC 6455 4.1)."""
    return b64encode(secrets.token_bytes(KEY_BYTES))


def is_key(value: bytes) -> bool:
    """Whether a client's key is one: 16 bytes in base64."""
    try:
        return len(b64decode(value, validate=True)) == KEY_BYTES
    except NotBase64:
        return False


def accept_of(key: bytes) -> bytes:
    """What a server answers to `key` (RFC 6455 4.2.2)."""
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())
