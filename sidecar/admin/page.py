"""The dashboard's files: `/` and `/dashboard/NAME`. Static, from this package; each asks for what it shows.

They hold no state of the process, so they are given without a token: the page asks its reader for it. The policy in
their headers lets the page load and ask nothing but this origin, and lets no text become markup.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from sidecar.admin.answers import Refused
from sidecar.core.dataclass import dataclass
from sidecar.serving.message import Request, Response
from sidecar.serving.routes import Routes

FOLDER: Final = Path(__file__).with_name("dashboard")
INDEX: Final = "index.html"
KINDS: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = {
    "Cache-Control": "no-cache",  # kept, and asked about each time: a new version is seen at once
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
}
_MAX_KNOWN: Final = 1024
"""Characters of what a client says that it has: browsers name one."""


@dataclass(frozen=True, slots=True)
class File:
    body: bytes
    kind: str
    etag: str


class Page:
    """All files, each read once, when it is first asked for: they are small, and an installed package does not change
    under its process."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = _files(folder)

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(self._files)

    def add_to(self, routes: Routes) -> None:
        routes.get("/", self._get)
        routes.get("/dashboard/{name}", self._get)

    async def _get(self, request: Request) -> Response:
        path = self._files.get(request.path)
        if path is None:
            raise Refused(404, f"there is nothing at {request.path[:100]}")
        file = _read(path)
        fields = {**HEADERS, "ETag": f'"{file.etag}"'}
        known = ",".join(request.headers.all("if-none-match"))[:_MAX_KNOWN].split(",")
        if any(one.strip().removeprefix("W/") in (fields["ETag"], "*") for one in known):  # RFC 9110 13.1.2
            return Response(304, fields=fields)
        return Response(200, file.body, kind=f"{file.kind}; charset=utf-8", fields=fields)


@cache
def _files(folder: Path) -> Mapping[str, Path]:
    """By the path that is asked for."""
    files = {f"/dashboard/{path.name}": path for path in folder.iterdir() if path.suffix in KINDS}
    return {"/": files.pop(f"/dashboard/{INDEX}"), **files}


@cache
def _read(path: Path) -> File:
    body = path.read_bytes()
    return File(body, KINDS[path.suffix], hashlib.sha256(body).hexdigest()[:20])
