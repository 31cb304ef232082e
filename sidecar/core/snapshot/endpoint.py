"""Where something is: an address, or a name with a port."""

from __future__ import annotations

import re
from dataclasses import field
from enum import Enum

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot.modes import Source

_ORIGINAL = "original"


MOST_WEIGHT = 65_535
"""Of an endpoint: as much as an SRV record can say (RFC 2782)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One `host:port`, or one UNIX socket (`path` set, host empty and port 0), or what names a list of them
    (`source`)."""

    host: str
    """For a source, what follows its `://`."""
    port: int
    path: str | None = None
    name: str | None = field(default=None, compare=False)
    """What `host`, an address, was resolved from. Two names with one address are one endpoint, named by the first."""
    is_https: bool = field(default=False, compare=False)
    """The file says `https://` before it, which is to say that its upstream has a `tls`."""
    source: Source = Source.ADDRESS
    uid: str = ""
    """Of the pod that it is: a new pod on an old address is another endpoint."""
    weight: int = field(default=1, compare=False)
    """Its share of the requests, beside those of the others; 0: only if there is nobody else."""
    priority: int = field(default=0, compare=False)
    """Those of a higher number take over as those of a lower one fail."""
    zones: tuple[str, ...] = field(default=(), compare=False)
    """Whose clients are to prefer it; empty: nothing is known."""

    @property
    def is_literal(self) -> bool:
        """True when no name has to be resolved."""
        return self.source is Source.ADDRESS and (self.path is not None or not self.port or _is_ip(self.host))

    @property
    def domain(self) -> str:
        """By which name it is asked for, where nothing else says it: a path for a UNIX socket."""
        if self.source is Source.SRV:
            return self.host.split(".", 2)[2]  # without service and protocol (RFC 2782)
        if self.source is Source.KUBERNETES:
            return f"{self.host.rpartition(':')[0]}.svc"
        return "localhost" if self.source is Source.FILE else self.path or self.host

    @property
    def facts(self) -> tuple[object, ...]:
        """What may change of an endpoint while it stays the same one."""
        return self.name, self.weight, self.priority, self.zones

    def __str__(self) -> str:
        if self.source is not Source.ADDRESS:
            return f"{self.source.value}://{self.host}"
        if self.path is not None:
            return f"unix:{self.path}"
        if not self.port and self.host == _ORIGINAL:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


ORIGINAL = Endpoint(_ORIGINAL, 0)
"""In the place of an endpoint: where the client's connection was going before it was intercepted."""


def _is_ip(host: str) -> bool:
    return ":" in host or re.fullmatch(r"\d+\.\d+\.\d+\.\d+", host) is not None


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener, the admin or the probe server binds: `host:port` or a UNIX socket path."""

    host: str
    port: int
    path: str | None = None
    is_v6_only: bool = False
    """Of an address of IPv6: IPv4 has a socket of its own."""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path is not None else str(Endpoint(self.host, self.port))


class HttpVersion(Enum):
    """What is spoken on a connection."""

    AUTO = "auto"
    """Of a listener: whatever the client begins with. Of an upstream: what the handshake agrees on (ALPN)."""
    HTTP1 = "http1"
    HTTP2 = "http2"
    """In clear text by prior knowledge (RFC 9113 3.3)."""
