"""Who may ask the admin server: no page of another origin, and with a token file nobody without the token.

A page in a browser on the same machine can send requests to loopback. Its own name may be pointed here by its DNS
("rebinding"), so `Host` has to be ours. A browser says with `Origin` and `Sec-Fetch-Site` for whom it asks: others
may open a page here, as a link does, and nothing else. They could read no answer, but a POST would be done and a
hidden `/events` would take the place of somebody who reads it.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Collection

from sidecar.admin.answers import Refused
from sidecar.admin.request_facts import peer_process
from sidecar.admin.token_file import TokenFile
from sidecar.core.snapshot import Admin
from sidecar.serving.message import Request

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110 9.2.1)."""
_OURSELVES = frozenset({"same-origin", "none"})
"""`Sec-Fetch-Site` of our own page, and of a user who types an address."""
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+))(?::[0-9]*)?", re.ASCII)


class Guard:
    """Lets a request pass or refuses it."""

    def __init__(self, admin: Admin, public: Collection[str] = ()) -> None:
        """`public` are paths that tell nothing of the process, so that reading them needs no token."""
        self._public = public
        self._address = admin.address
        self._token = TokenFile(admin.token_file) if admin.token_file is not None else None

    async def start(self) -> None:
        """Let the log say now if nobody could be let in."""
        if self._token is not None:
            await self._token.load()

    async def check(self, request: Request) -> None:
        """Raises: Refused, with 401, 403 or 503."""
        host = request.headers.get("host")
        if self._address.path is not None:
            _check_uid(request)
        if self._token is not None:
            if request.path not in self._public or request.method not in READING:
                await self._token.check(request.headers.get("authorization", ""))
        elif self._address.path is None and host is not None and not self._is_ours(host):
            raise Refused(403, f"Host {host[:100]!r} is not this sidecar's: ask localhost or {self._address}")
        origin = request.headers.get("origin")
        if _is_elsewhere(request, origin, host) and not _opens_page(request):
            whom = (origin or "another origin")[:100]
            raise Refused(403, f"a page of {whom!r} asks: it may open a page here, and nothing else")

    def _is_ours(self, host: str) -> bool:
        """True for loopback by name or number, and for the address that is bound."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1] or match[2].lower().removesuffix(".")
        if name == "localhost" or name.endswith(".localhost") or name == self._address.host:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def _check_uid(request: Request) -> None:
    """The file's mode keeps others out; whoever was handed the socket, or finds its directory bound elsewhere, is
    told apart by the kernel. Raises: Refused."""
    found = peer_process(request)
    if found is None or found[0] not in (0, os.geteuid()):
        who = "nobody knows who asks" if found is None else f"uid {found[0]} asks"
        raise Refused(403, f"{who}: this socket is for uid {os.geteuid()} and root")


def _is_elsewhere(request: Request, origin: str | None, host: str | None) -> bool:
    """Whether a browser asks for a page that is not ours."""
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        return True
    return request.headers.get("sec-fetch-site", "none") not in _OURSELVES


def _opens_page(request: Request) -> bool:
    """Whether this fills a tab: as the answer of a link that was followed, and not in a frame of another page.

    Not with events: they have few places, and a page could open one tab after the other.
    """
    if request.path == "/events":
        return False
    headers = request.headers
    is_page = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return is_page and request.method in READING
