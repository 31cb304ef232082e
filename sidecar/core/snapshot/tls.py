"""How TLS is spoken, with which files."""

from __future__ import annotations

from enum import Enum

from sidecar.core.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A certificate with its key, as PEM files."""

    chain: str
    """The certificate, then those that lead to its CA."""
    key: str


class ClientCertificate(Enum):
    """Whether a listener asks its clients for one."""

    OFF = "off"
    REQUEST = "request"
    """None is fine, a bad one ends the handshake."""
    REQUIRE = "require"


class TlsVersion(Enum):
    """The oldest that is spoken."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


@dataclass(frozen=True, slots=True)
class ListenerTls:
    """How a listener proves who it is, and what it asks of its clients. `certificate` or `certificates` is given."""

    certificate: CertificateFiles | None = None
    certificates: tuple[CertificateFiles, ...] = ()
    """Of which the name that a client asks for (SNI) chooses; the first where none fits."""
    client_ca: str | None = None
    """A PEM file: who signs the certificates of clients."""
    client: ClientCertificate = ClientCertificate.OFF
    minimum_version: TlsVersion = TlsVersion.TLS_1_2

    @property
    def pairs(self) -> tuple[CertificateFiles, ...]:
        """All of them, however they were written."""
        return self.certificates if self.certificate is None else (self.certificate,)


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """What an upstream has to prove, and how the sidecar proves itself to it."""

    ca: str | None = None
    """A PEM file: who signs its certificates; None: those whom the system trusts."""
    server_name: str | None = None
    """The name asked for (SNI) and checked; None: that of the endpoint."""
    certificate: CertificateFiles | None = None
    """Shown where the upstream asks for one."""
    identities: tuple[str, ...] = ()
    """One of them must stand in its certificate, in place of the name; empty: the name must."""
    alpn: tuple[str, ...] = ()
    """Offered in this order; empty: what `protocol` says."""
