"""A small CA, and certificates signed by it: for development, demos and tests, and marked as such.

Needs the package `cryptography`, which the extra `certs` brings; nothing that serves traffic does.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.core.dataclass import dataclass

MARK: Final = "sidecar for development only"
"""The organization in each of them: whoever looks at one sees that it is none to trust."""
MAX_DAYS: Final = 825
"""Longer ones are refused by some clients."""
_CA_DAYS: Final = 3650.0
_DAY: Final = datetime.timedelta(days=1)
_HOUR: Final = datetime.timedelta(hours=1)
"""Clocks differ: certificates hold from so long ago."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"<Pair {self.certificate.subject.rfc4514_string()}>"

    @property
    def chain_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def make_ca(name: str, days: float = 365.0, issuer: Pair | None = None) -> Pair:
    """A CA of its own, or one below `issuer`."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, key, issuer, _now() - _HOUR, _now() + days * _DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = builder.add_extension(usage, critical=True)
    return _signed(builder, key, issuer)


def make_pair(
    ca: Pair | None,
    names: Iterable[str],
    *,
    begins: datetime.datetime | None = None,
    ends: datetime.datetime | None = None,
    common_name: str | None = None,
    is_server: bool = True,
    is_client: bool = True,
) -> Pair:
    """A certificate for DNS names, IP addresses and URIs (SPIFFE IDs).

    Args:
        ca: who signs it; None: it signs itself.
        begins, ends: when it holds; None: from an hour ago, and for 90 days.
        common_name: of its subject; None: the first name, where it has no more than the 64 characters allowed.
    """
    names = list(names)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = common_name or next((name for name in names if len(name) <= 64), "unnamed")
    builder = _builder(subject, key, ca, begins or _now() - _HOUR, ends or _now() + 90 * _DAY)
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(list(map(_general, names))), critical=False
        )
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] * is_server + [ExtendedKeyUsageOID.CLIENT_AUTH] * is_client
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return _signed(builder, key, ca)


def _builder(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: Pair | None,
    begins: datetime.datetime,
    ends: datetime.datetime,
) -> x509.CertificateBuilder:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, MARK),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),
        ]
    )
    signer = issuer.key.public_key() if issuer is not None else key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, issuer: Pair | None) -> Pair:
    return Pair(builder.sign(issuer.key if issuer is not None else key, hashes.SHA256()), key)


def _general(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def write_key(path: Path, pair: Pair) -> None:
    """With access for its owner alone, from its first byte on."""
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        os.fchmod(file.fileno(), 0o600)  # of one that was there already
        file.write(pair.key_pem)


def write(directory: Path, pairs: Iterable[Iterable[str]], days: float) -> list[Path]:
    """A CA, unless one is there, and a pair for each group of names. Returns the files, as they were written.

    Raises:
        OSError, ValueError: the text says which file or name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    ca = _authority(directory, written)
    for names in map(list, pairs):
        stem = _stem(names[0])
        pair = make_pair(ca, names, ends=_now() + days * _DAY)
        written += _write_pair(directory, stem, pair)
    return written


def _authority(directory: Path, written: list[Path]) -> Pair:
    """The one of before goes on, so that those who trust it need not be told."""
    chain, key = directory / "ca.crt", directory / "ca.key"
    if chain.exists() or key.exists():
        try:
            certificate = x509.load_pem_x509_certificate(chain.read_bytes())
            private = serialization.load_pem_private_key(key.read_bytes(), None)
        except ValueError as error:
            raise ValueError(f"{chain} with {key}: cannot be read: {error}") from None
        if (
            not isinstance(private, ec.EllipticCurvePrivateKey)
            or MARK not in certificate.subject.rfc4514_string()
        ):
            raise ValueError(f"{chain}: it was not made by this command: choose another directory")
        return Pair(certificate, private)
    ca = make_ca("sidecar development CA", _CA_DAYS)
    written += _write_pair(directory, "ca", ca)
    return ca


def _write_pair(directory: Path, stem: str, pair: Pair) -> list[Path]:
    chain, key = directory / f"{stem}.crt", directory / f"{stem}.key"
    write_key(key, pair)
    chain.write_bytes(pair.chain_pem)
    return [chain, key]


def _stem(name: str) -> str:
    """A file's name for a certificate's."""
    found = name.removeprefix("spiffe://").replace("*", "any")
    found = re.sub(r"[^A-Za-z0-9._-]+", "-", found).strip("-.")
    if not found or found == "ca":
        raise ValueError(f"{name!r} names no file: begin with another name")
    return found
