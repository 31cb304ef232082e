"""The mutating admission webhook's server: TLS from mounted files, taken anew when they change.

Owns its server and one task that looks at the files. A bad new certificate changes nothing and is logged. What a
review may cost is the affair of `reviewing.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import ssl
from pathlib import Path
from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Address
from sidecar.kubernetes.reviewing import Reviewer
from sidecar.kubernetes.settings import Settings
from sidecar.serving.http import HttpServer
from sidecar.serving.message import Handler, Request, Response
from sidecar.serving.routes import Routes

MAX_CONNECTIONS: Final = 40
"""At once. A TLS connection takes up to 1.3 MiB while a large review comes in by it, 0.3 else."""
POLL_SECONDS: Final = 10.0
"""How often the files are looked at; the kubelet itself needs up to a minute to bring a new Secret."""
END_SECONDS: Final = 5.0
"""For reviews in flight, at the end."""

_LOG = logging.getLogger("sidecar.kubernetes")
_NO_CERTIFICATE: Final = (
    "a client certificate of --client-ca is needed: give the API server one (deploy/README.md)\n"
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Of the webhook's Secret, mounted as a directory: with `subPath` it would never change."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """Who signs the certificates of those that may ask for a review; None: whoever reaches the port may."""

    def digest(self) -> str:
        """Of all contents. Raises: OSError."""
        files = [self.certificate, self.key, *([self.client_ca] if self.client_ca is not None else [])]
        return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()

    def context(self) -> ssl.SSLContext:
        """A context of what they hold now. Raises: OSError, ssl.SSLError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL  # the kubelet, which asks the probes, has none
        return context


class Webhook:
    """Serves POST /mutate by TLS, and GET /livez and /readyz beside it."""

    def __init__(self, settings: Settings, files: TlsFiles, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._files = files
        self._poll_seconds = poll_seconds
        self._digest = ""
        self._context: ssl.SSLContext
        self._reviewer = Reviewer(settings)
        self._server = HttpServer("--host and --port", end_seconds=END_SECONDS, tls=lambda: self._context)
        self._server.max_connections = MAX_CONNECTIONS
        self._watching: asyncio.Task[None] | None = None
        self.port = 0

    @property
    def connection_count(self) -> int:
        return self._server.connection_count

    @property
    def large_reviews(self) -> int:
        """How many are held now."""
        return self._reviewer.large

    async def start(self, host: str, port: int) -> None:
        """Bind and serve.

        Raises:
            OSError: the address cannot be bound, or the files cannot be read or used (ssl.SSLError).
        """
        self._load(self._files.digest())
        routes = Routes()
        routes.post("/mutate", self._guarded(self._reviewer.answer))
        routes.get("/livez", _ok)
        routes.get("/readyz", _ok)
        self._server.start(routes.dispatch, Address(host, port))
        self.port = self._server.port
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Let reviews in flight finish, then close."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self._server.stop()
        self._reviewer.close()

    def _load(self, digest: str) -> None:
        """A context of its own for each content, so that what is in use is never half of one and half of another."""
        self._context = self._files.context()
        self._digest = digest

    async def _watch(self) -> None:
        refused = ""
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                digest = await asyncio.to_thread(self._files.digest)
                if digest in (self._digest, refused):
                    continue
                refused = digest
                self._load(digest)
                _LOG.info("the new certificate %s is in use", self._files.certificate)
            except OSError as error:
                _LOG.warning("the certificate cannot be loaded, the old one stays: %s", error)

    def _guarded(self, handler: Handler) -> Handler:
        if self._files.client_ca is None:
            return handler

        async def guarded(request: Request) -> Response | None:
            if not request.client.about("peercert"):
                return Response(403, _NO_CERTIFICATE)
            return await handler(request)

        return guarded


async def _ok(_request: Request) -> Response:
    return Response(200, "ok\n")
