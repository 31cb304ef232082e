"""A client's changes of keys in TLS 1.3, made by hand (RFC 8446 4.6.3 and 7.2): no library sends a thousand at once.

A client shakes hands by Python's `ssl`, which writes down the secret of what it sends. The records that follow are
made here from that secret, before the client has sent anything else.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_CIPHERS: Final = {"TLS_AES_128_GCM_SHA256": (SHA256(), 16), "TLS_AES_256_GCM_SHA384": (SHA384(), 32)}
"""By name: the hash of its keys, and their bytes."""
_HANDSHAKE, _DATA = 22, 23


class KeyUpdates:
    """Of one connection, right after its handshake."""

    def __init__(self, keys_file: Path, cipher: str) -> None:
        """`keys_file`: what `SSLContext.keylog_filename` has named. `cipher`: what was agreed on."""
        lines = [line.split() for line in keys_file.read_text().splitlines()]
        self._secret = next(bytes.fromhex(line[2]) for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0")
        self._hash, self._key_bytes = _CIPHERS[cipher]
        self._use()

    def records(self, number: int, *, is_answer_wanted: bool) -> bytes:
        """So many changes of keys, one a record."""
        return b"".join(self._changed(is_answer_wanted) for _ in range(number))

    def data(self, content: bytes) -> bytes:
        """A record of data."""
        return self._record(content, _DATA)

    def _changed(self, is_answer_wanted: bool) -> bytes:
        record = self._record(bytes((24, 0, 0, 1, is_answer_wanted)), _HANDSHAKE)
        self._secret = self._expanded("traffic upd", self._hash.digest_size)
        self._use()
        return record

    def _use(self) -> None:
        self._cipher = AESGCM(self._expanded("key", self._key_bytes))
        self._iv = int.from_bytes(self._expanded("iv", 12))
        self._number = 0

    def _expanded(self, label: str, length: int) -> bytes:
        """HKDF-Expand-Label without context (RFC 8446 7.1)."""
        name = b"tls13 " + label.encode()
        info = length.to_bytes(2) + bytes((len(name),)) + name + b"\0"
        return HKDFExpand(self._hash, length, info).derive(self._secret)

    def _record(self, content: bytes, kind: int) -> bytes:
        head = bytes((_DATA, 3, 3)) + (len(content) + 1 + 16).to_bytes(2)
        nonce = (self._iv ^ self._number).to_bytes(12)
        self._number += 1
        return head + self._cipher.encrypt(nonce, content + bytes((kind,)), head)


def keyed(context: ssl.SSLContext, keys_file: Path) -> ssl.SSLContext:
    """The same context, which writes down its secrets, and agrees on TLS 1.3 alone."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(keys_file)
    return context
