"""The mutating admission webhook's server: TLS from mounted files, taken anew when they change.

Owns its server and one task that looks at the files. A bad new certificate changes nothing and is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from sidecar.kubernetes.admission import BadReview, review, told
from sidecar.kubernetes.settings import Settings

MAX_REVIEW_BYTES = 8 * 1024 * 1024
"""An object has at most 1.5 MiB in etcd, and a review may carry it twice."""
_MAX_NAME_CHARACTERS = 320
POLL_SECONDS = 10.0
"""How often the files are looked at; the kubelet itself needs up to a minute to bring a new Secret."""

_LOG = logging.getLogger("sidecar.kubernetes")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Of the webhook's Secret, mounted as a directory: with `subPath` it would never change."""

    certificate: Path
    key: Path

    def digest(self) -> str:
        """Of both contents. Raises: OSError."""
        return hashlib.sha256(self.certificate.read_bytes() + b"\0" + self.key.read_bytes()).hexdigest()


class Webhook:
    """Serves POST /mutate by TLS, and GET /livez and /readyz beside it."""

    def __init__(self, settings: Settings, files: TlsFiles, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._settings = settings
        self._files = files
        self._poll_seconds = poll_seconds
        self._digest = ""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._runner: web.AppRunner | None = None
        self._watching: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Bind and serve.

        Raises:
            OSError: the address cannot be bound, or the files cannot be read or used (ssl.SSLError).
        """
        self._load(self._files.digest())
        app = web.Application(client_max_size=MAX_REVIEW_BYTES)
        app.router.add_post("/mutate", self._mutate)
        app.router.add_get("/livez", _ok)
        app.router.add_get("/readyz", _ok)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=5.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=self._context)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Let reviews in flight finish, then close."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        if self._runner is not None:
            await self._runner.cleanup()

    def _load(self, digest: str) -> None:
        # tried on a context of its own first: a key that does not fit would leave half of it behind
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trial.load_cert_chain(self._files.certificate, self._files.key)
        # a context that is in use hands its new chain to every later handshake
        self._context.load_cert_chain(self._files.certificate, self._files.key)
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

    async def _mutate(self, request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
            answer = review(body, self._settings)
        except (BadReview, ValueError, RecursionError) as error:
            _LOG.warning("a bad review: %s", error)
            return web.Response(status=400, text=f"{error}\n")
        _LOG.info("pod %s: %s", _name(body["request"]), told(answer))
        return web.json_response(answer)


def _name(request: dict[str, Any]) -> str:
    """Of the pod, as a controller makes it: often without a name of its own yet. In quotes: nobody has checked it."""
    pod = request.get("object")
    metadata = pod.get("metadata") if isinstance(pod, dict) else None
    found = metadata if isinstance(metadata, dict) else {}
    name = found.get("name") or found.get("generateName") or request.get("name") or ""
    return repr(f"{request.get('namespace') or ''}/{name}"[:_MAX_NAME_CHARACTERS])


async def _ok(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")
