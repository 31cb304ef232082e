"""What a TLS handshake came to: for logs, spans and whoever matches by it. Values alone."""

from __future__ import annotations

from sidecar.core.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """Of one connection."""

    version: str
    """`1.2` or `1.3`."""
    cipher: str
    """OpenSSL's name of it."""
    alpn: str | None
    """The protocol that was agreed on; None if none was."""
    sni: str | None
    """The name that was asked for."""
    identity: str | None
    """Who the other side has proved to be."""
    is_resumed: bool
    """By a session of an earlier connection: no certificate was sent again."""
