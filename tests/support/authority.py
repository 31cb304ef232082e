"""A small authority for tests: it signs whatever a test wants a peer to show, also what nobody should take."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.cli.dev_certificates import Pair as Made
from sidecar.cli.dev_certificates import make_ca, write_key

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate with its key, in files."""

    chain: Path
    key: Path
    certificate: x509.Certificate

    @property
    def sha256(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def yaml(self) -> str:
        """As the configuration names it."""
        return f'{{chain: "{self.chain}", key: "{self.key}"}}'


class Authority:
    """Signs with a key of its own. Files go to `folder`."""

    def __init__(self, folder: Path, name: str = "test-ca") -> None:
        self.folder = folder
        self.name = name
        made = make_ca(name)
        self.key, self.certificate = made.key, made.certificate
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(made.chain_pem)

    def pair(
        self,
        *dns: str,
        uris: Sequence[str] = (),
        addresses: Sequence[str] = (),
        common_name: str = "",
        days: float = 30,
        begins_in_days: float = -1,
        file: str | None = None,
    ) -> Pair:
        """Sign a certificate for these names; without any it has a common name alone."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        common_name = common_name or (dns[0] if dns else "somebody")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        start, end = now + begins_in_days * DAY, now + days * DAY
        builder = _begun(subject, self.certificate.subject, key, start, end)
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
        names += [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(issuer, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        stem = (
            file or f"{common_name.replace('*', 'any').replace('/', '_')}-{certificate.serial_number % 10**8}"
        )
        pair = Pair(self.folder / f"{stem}.pem", self.folder / f"{stem}.key", certificate)
        made = Made(certificate, key)
        pair.chain.write_bytes(made.chain_pem)
        write_key(pair.key, made)
        return pair

    @cached_property
    def trust(self) -> ssl.SSLContext:
        """A client that trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.path))

    def client(self, pair: Pair | None = None, *, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """A client that trusts this authority alone, and shows `pair`."""
        context = ssl.create_default_context(cafile=str(self.path))
        if pair is not None:
            context.load_cert_chain(pair.chain, pair.key)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
