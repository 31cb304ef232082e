"""Certificates for tests, as PEM files of a directory."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from sidecar.cli.dev_certificates import Pair, make_ca, make_pair, write_key
from sidecar.core.snapshot import CertificateFiles

DAY = datetime.timedelta(days=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Certificates:
    """A CA, and what it signs; each is written when it is made."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self.authority = make_ca(name)
        self.ca = str(directory / f"{name}.crt")
        Path(self.ca).write_bytes(self.authority.chain_pem)

    def pair(self, stem: str, *names: str, signed_by: Pair | None = None, **how: Any) -> CertificateFiles:
        """`stem.crt` and `stem.key`, signed by the CA unless `signed_by` says another."""
        made = make_pair(signed_by or self.authority, names, **how)
        return self.write(stem, made)

    def self_signed(self, stem: str, *names: str) -> CertificateFiles:
        return self.write(stem, make_pair(None, names))

    def expired(self, stem: str, *names: str) -> CertificateFiles:
        return self.pair(stem, *names, begins=now() - 2 * DAY, ends=now() - DAY)

    def future(self, stem: str, *names: str) -> CertificateFiles:
        return self.pair(stem, *names, begins=now() + DAY, ends=now() + 2 * DAY)

    def write(self, stem: str, pair: Pair, *above: Pair) -> CertificateFiles:
        """With the certificates of those above it behind it."""
        chain, key = self._directory / f"{stem}.crt", self._directory / f"{stem}.key"
        chain.write_bytes(b"".join(one.chain_pem for one in (pair, *above)))
        write_key(key, pair)
        return CertificateFiles(str(chain), str(key))
