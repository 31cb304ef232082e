"""What a client's TLS handshake has shown: who it is, and how that is told and asked about.

A client's identity is the SPIFFE ID of its certificate, else the first DNS name, else the subject; of a certificate
that was verified, never of what a header field says. Here is how a route asks for it, and how it is handed on to
upstreams (`X-Forwarded-Client-Cert`). Pure: it knows no socket and no library of TLS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from sidecar.core.dataclass import dataclass

XFCC_NAMES: Final = frozenset(
    b"x%bforwarded%bclient%bcert" % (first, second, third)
    for first in (b"-", b"_")
    for second in (b"-", b"_")
    for third in (b"-", b"_")
)
"""`X-Forwarded-Client-Cert` in all spellings that some server takes for it (see `headers.FORWARDED`)."""

SPIFFE: Final = "spiffe://"
_SPIFFE_ID: Final = re.compile(r"spiffe://[a-z0-9._-]+(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*")
"""SPIFFE-ID 2: a trust domain in lower case, segments that are neither empty nor dots, nothing escaped."""
_MAX_SPIFFE_ID: Final = 2048
_UNTOLD: Final = re.compile("[^ -~]")


@dataclass(frozen=True, slots=True)
class ClientTls:
    """One for each connection. Kept with each request of it, and with the records of those."""

    identity: str = ""
    """Of the client's verified certificate; empty without one."""
    server_name: str = ""
    """What the client asked for in its handshake, lower-case; empty if it named nothing."""
    protocol: str = ""
    """The version of TLS, as `1.3`."""
    xfcc: bytes = b""
    """The line for upstreams; empty without a certificate."""


@dataclass(frozen=True, slots=True)
class ShownCertificate:
    """What is told of a verified certificate."""

    sha256: str
    """Of the whole certificate (DER), in hex."""
    subject: str
    """As RFC 4514 writes it, the most specific part first."""
    uris: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        return identity_of(self.uris, self.dns_names, self.subject)


def identity_of(uris: Sequence[str], dns_names: Sequence[str], subject: str) -> str:
    """Who a certificate's owner is, on either side of a connection; empty for nobody.

    Of several SPIFFE IDs none counts: a certificate has one (X509-SVID 2).
    """
    spiffe = [uri for uri in uris if uri.startswith(SPIFFE)]
    if spiffe:
        return spiffe[0] if len(spiffe) == 1 and is_spiffe_id(spiffe[0]) else ""
    name = dns_names[0].lower() if dns_names else subject
    return "" if name.startswith(SPIFFE) else name  # what is no URI is no SPIFFE ID


def is_spiffe_id(text: str) -> bool:
    return len(text) <= _MAX_SPIFFE_ID and _SPIFFE_ID.fullmatch(text) is not None


def is_client(asked: Iterable[str], identity: str) -> bool:
    """Whether a route that asks for one of these takes a client of this identity.

    `spiffe://trust.domain/ns/a` stands for itself and all below it, by whole segments; anything else for itself.
    """
    if not identity:
        return False
    return any(
        identity == one or (one.startswith(SPIFFE) and identity.startswith(f"{one}/")) for one in asked
    )


def xfcc_line(client: ShownCertificate, own_uris: Sequence[str] = ()) -> bytes:
    """`X-Forwarded-Client-Cert` as Envoy writes it: `By` for each URI of our own certificate, `Hash`, `Subject`, then
    each `URI` and `DNS` of the client's."""
    pairs = [("By", uri) for uri in own_uris]
    pairs += [("Hash", client.sha256), ("Subject", client.subject)]
    pairs += [("URI", uri) for uri in client.uris]
    pairs += [("DNS", name) for name in client.dns_names]
    text = ";".join(f"{key}={_quoted(value, is_always=key == 'Subject')}" for key, value in pairs)
    return b"X-Forwarded-Client-Cert: %b\r\n" % text.encode("ascii")


def _quoted(value: str, *, is_always: bool) -> str:
    """Whoever may name a certificate chooses these texts: none of them ends its value or its line."""
    value = _UNTOLD.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), value)
    if not is_always and not any(mark in value for mark in ',;="\\ '):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
