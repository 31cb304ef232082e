"""Who may ask the admin server: no web page, and with a token file nobody without the token.

A page in a browser on the same machine can send requests to loopback. It cannot read answers of another origin, so
reading is safe as long as `Host` is ours (a page's own name that its DNS points here, "rebinding", is not); and a
browser says with `Origin` and `Sec-Fetch-Site` where a POST comes from, so those of other origins are refused.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
from collections.abc import Collection
from pathlib import Path

from aiohttp import web

from sidecar.admin.answers import Refused
from sidecar.core.snapshot import Admin

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110 9.2.1)."""
_OURSELVES = frozenset({"same-origin", "none"})
"""`Sec-Fetch-Site` of our own page, and of a user who types an address."""


class Guard:
    """Lets a request pass or refuses it."""

    def __init__(self, admin: Admin, public: Collection[str] = ()) -> None:
        """`public` are paths that tell nothing of the process, so that reading them needs no token."""
        self._public = public
        self._address = admin.address
        self._token = TokenFile(admin.token_file) if admin.token_file is not None else None

    async def check(self, request: web.Request) -> None:
        """Raises: Refused, with 401 or 403."""
        host = request.headers.get("Host")
        if self._token is not None:
            if request.path not in self._public:
                await self._token.check(request.headers.get("Authorization", ""))
        elif self._address.path is None and host is not None and not self._is_ours(host):
            raise Refused(403, f"Host {host[:100]!r} is not this sidecar's: ask localhost or {self._address}")
        if request.method not in READING:
            _check_origin(request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site"), host)

    def _is_ours(self, host: str) -> bool:
        """True for loopback by name or number, and for the address that is bound."""
        name = _without_port(host)
        if name == "localhost" or name.endswith(".localhost") or name == self._address.host:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


class TokenFile:
    """A secret in a file, read again whenever the file is another."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._token = b""

    async def check(self, authorization: str) -> None:
        """Raises: Refused, unless `authorization` is `Bearer` and the token."""
        scheme, _, given = authorization.partition(" ")
        token = await asyncio.to_thread(self._read)
        if not token:
            raise Refused(503, "the token file is empty or cannot be read, so nobody may ask")
        is_right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token)
        if scheme.lower() != "bearer" or not is_right:
            detail = "give the token: Authorization: Bearer …"
            raise Refused(401, detail, headers={"WWW-Authenticate": 'Bearer realm="sidecar"'})

    def _read(self) -> bytes:
        try:
            found = os.stat(self._path)
            seen = found.st_mtime_ns, found.st_size, found.st_ino
            if seen != self._seen:
                self._token = self._path.read_bytes().strip()
                self._seen = seen
        except OSError:
            self._seen, self._token = None, b""
        return self._token


def _check_origin(origin: str | None, fetch_site: str | None, host: str | None) -> None:
    is_foreign = origin is not None and origin not in (f"http://{host}", f"https://{host}")
    if is_foreign or (fetch_site is not None and fetch_site not in _OURSELVES):
        raise Refused(403, f"changes are not taken from pages of {(origin or 'another origin')[:100]!r}")


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()
