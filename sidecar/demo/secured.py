"""TLS between the sidecars of the demo: certificates by `sidecar certs`, and a client that shows its own.

Every service has its name and a SPIFFE ID; a sidecar shows it to its neighbour, and lets in only who shows one. The
apps speak clear text, as without.
"""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.core.program import command
from sidecar.demo.processes import DemoFailed

CLIENT: Final = "client"
DOMAIN: Final = "spiffe://demo"


@dataclass(frozen=True)
class Secured:
    """A CA and a pair for each name, as files in a folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, names: Iterable[str]) -> Secured:
        """For these services and a client. Raises: DemoFailed."""
        pairs = [word for name in (*names, CLIENT) for word in ("--for", name, f"{DOMAIN}/{name}")]
        done = subprocess.run(
            command("sidecar", "certs", str(folder), *pairs), capture_output=True, text=True
        )
        if done.returncode:
            raise DemoFailed(done.stderr.strip())
        return cls(folder)

    def listener(self, name: str) -> str:
        """Further keys of its inbound listener."""
        tls = {"certificate": self._pair(name), "client_ca": self._path("ca.crt"), "client": "require"}
        return f", tls: {json.dumps(tls)}"

    def upstream(self, name: str, neighbour: str) -> str:
        """Further keys of the upstream that leads to its neighbour's sidecar."""
        tls = {"ca": self._path("ca.crt"), "server_name": neighbour, "certificate": self._pair(name)}
        return f", tls: {json.dumps(tls)}"

    def context(self, *, has_certificate: bool = True) -> ssl.SSLContext:
        """Of the client."""
        context = ssl.create_default_context(cafile=self._path("ca.crt"))
        if has_certificate:
            pair = self._pair(CLIENT)
            context.load_cert_chain(pair["chain"], pair["key"])
        return context

    def curl(self, name: str, port: int, path: str) -> str:
        """A call to this service's sidecar, as the client."""
        pair = self._pair(CLIENT)
        files = f"--cacert {self._path('ca.crt')} --cert {pair['chain']} --key {pair['key']}"
        return f"curl -i --resolve {name}:{port}:127.0.0.1 {files} 'https://{name}:{port}{path}'"

    def _pair(self, name: str) -> dict[str, str]:
        return {"chain": self._path(f"{name}.crt"), "key": self._path(f"{name}.key")}

    def _path(self, name: str) -> str:
        return str(self.folder / name)
