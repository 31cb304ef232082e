"""The values of routing actions, as the snapshot holds them: valid from birth, never changed.

Shares of a path, a host and a port are those of the request where they are unset (Gateway API, HTTPRoute).
"""

from __future__ import annotations

from typing import Final

from sidecar.core.actions.template import Value
from sidecar.core.dataclass import dataclass

SCHEMES: Final = {"http": 80, "https": 443}
"""With the port that each stands for."""


@dataclass(frozen=True, slots=True)
class RedirectPolicy:
    """The client is sent elsewhere (RFC 9110 15.4)."""

    status: int = 302
    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    """Unset: that of `scheme` where it is given, else the one that the client asked for."""
    path: str | None = None
    """In place of the whole path; the query stays."""
    prefix: str | None = None
    """In place of the matched prefix; excludes `path`."""


@dataclass(frozen=True, slots=True)
class RespondPolicy:
    """A fixed answer."""

    status: int = 200
    headers: tuple[tuple[bytes, Value], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class ClientPolicy:
    """Which clients are served, by their addresses. Networks are written `address/bits`."""

    allow: tuple[str, ...] = ()
    """Empty: all that are not denied."""
    deny: tuple[str, ...] = ()
    """Wins over `allow`."""
    forwarded_hops: int = 0
    """The client is who the last but so many entries of `X-Forwarded-For` name; 0: who has made the connection."""


EVERYBODY: Final = ClientPolicy()


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    """Which pages of other origins may use a route (Fetch, CORS protocol; Gateway API, HTTPCORSFilter)."""

    allow_origins: tuple[str, ...] = ()
    """Lower-case `scheme://host[:port]`, whose host may begin with `*.`; `*` for every one; `null`."""
    allow_credentials: bool = False
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    """Lower-case."""
    expose_headers: tuple[str, ...] = ()
    max_age_seconds: float = 5.0
    allow_private_network: bool = False
    """A page of a public network may ask a server of a private one (Private Network Access)."""
