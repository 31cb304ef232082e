"""Which names a verified certificate has, and who that makes its owner (SPEC-PROTOCOLS 13).

Works on what `SSLObject.getpeercert()` gives, which is there only for a certificate whose chain was verified. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from sidecar.core.client_tls import SPIFFE, identity_of

Certificate = Mapping[str, Any]
"""As `getpeercert()` gives it: `subject`, `subjectAltName`, `notBefore`, `notAfter`."""

_SHORT: Final = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "domainComponent": "DC",
}
"""RFC 4514 3."""
_SPECIAL: Final = str.maketrans({character: f"\\{character}" for character in '",+;<>\\'})


def of_kind(certificate: Certificate, kind: str) -> Iterator[str]:
    """Its subject alternative names of one kind: `DNS`, `URI` or `IP Address`."""
    return (value for name, value in certificate.get("subjectAltName", ()) if name == kind)


def identity(certificate: Certificate) -> str | None:
    """Who its owner is (`identity_of`); None for nobody."""
    uris, dns_names = (tuple(of_kind(certificate, kind)) for kind in ("URI", "DNS"))
    return identity_of(uris, dns_names, subject(certificate)) or None


def subject(certificate: Certificate) -> str:
    """As a text by RFC 4514: the last part first."""
    parts = [
        "+".join(f"{_SHORT.get(key, key)}={value.translate(_SPECIAL)}" for key, value in together)
        for together in certificate.get("subject", ())
    ]
    return ",".join(reversed(parts))


def has_identity(certificate: Certificate, wanted: Collection[str]) -> bool:
    """Whether one of `wanted` is a URI or a DNS name of it, or, where it has neither, its subject.

    To the letter, but for the case of DNS names: a pattern of the certificate stands for nothing but itself. A SPIFFE
    ID counts where it is the only one.
    """
    if any(uri in wanted for uri in of_kind(certificate, "URI") if not uri.startswith(SPIFFE)):
        return True
    wanted_names = {one.lower() for one in wanted if "://" not in one}
    if any(name.lower() in wanted_names for name in of_kind(certificate, "DNS")):
        return True
    owner = identity(certificate)
    if owner is not None and owner.startswith(SPIFFE):
        return owner in wanted
    is_named = any(kind in ("URI", "DNS") for kind, _ in certificate.get("subjectAltName", ()))
    return not is_named and subject(certificate) in wanted


def has_name(certificate: Certificate, host: str) -> bool:
    """Whether it is for `host`, a DNS name or an IP address without brackets (RFC 9525 6).

    The common name says nothing, as in browsers. An address is compared with addresses alone.
    """
    address = _address(host)
    if address is not None:
        return any(_address(one) == address for one in of_kind(certificate, "IP Address"))
    host = host.rstrip(".").lower()
    return any(covers(pattern, host) for pattern in of_kind(certificate, "DNS"))


def covers(pattern: str, host: str) -> bool:
    """Whether a DNS name of a certificate is that of `host`, lower-case.

    `*` stands for one whole label, the leftmost, and there are two labels behind it at least (RFC 9525 6.3; OpenSSL
    asks for the same).
    """
    pattern = pattern.rstrip(".").lower()
    if not pattern.startswith("*."):
        return pattern == host and "*" not in pattern
    rest = pattern[1:]
    label, dot, behind = host.partition(".")
    return bool(label and dot) and rest == f".{behind}" and "." in behind and "*" not in rest


def told_names(certificate: Certificate, most: int = 5) -> str:
    """Its names, for a message."""
    found = [
        value for name, value in certificate.get("subjectAltName", ()) if name in ("DNS", "IP Address", "URI")
    ]
    if not found:
        return "no name at all"
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
