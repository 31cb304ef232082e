"""Which requests are a route's."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from sidecar.core.dataclass import dataclass


class PathKind(Enum):
    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"


class Pattern(Protocol):
    """A regular expression for text that clients write, so one that takes no more than linear time."""

    @property
    def pattern(self) -> str:
        """As the configuration spells it."""

    @property
    def steps(self) -> int:
        """Of the compiled expression: with each byte of a text, at most all of them are taken."""

    @property
    def prefix(self) -> bytes:
        """What every text begins with that it matches; empty where that is not certain."""

    def holds(self, value: bytes) -> bool:
        """True if the whole of `value` matches."""


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """One condition on a header field or query parameter. Exactly one of the fields after `name` is set."""

    name: str
    """Lower-case for header fields, as written for query parameters."""
    exact: str | None = None
    regex: Pattern | None = None
    present: bool | None = None
    prefix: str | None = None
    suffix: str | None = None


@dataclass(frozen=True, slots=True)
class PathMatch:
    kind: PathKind
    value: str
    """Always starts with `/` for exact and prefix. A prefix holds whole segments: `/v1` is not in `/v10`."""
    regex: Pattern | None = None
    """Set for `PathKind.REGEX`; for the whole path, without the query."""


@dataclass(frozen=True, slots=True)
class GrpcMatch:
    """A condition on a gRPC call, of which service and method make the path: `/pkg.Payments/Charge`."""

    service: str | None = None
    method: str | None = None
    """Only with a service."""

    def path(self) -> PathMatch | None:
        if self.service is None:
            return None
        if self.method is None:
            return PathMatch(PathKind.PREFIX, f"/{self.service}")
        return PathMatch(PathKind.EXACT, f"/{self.service}/{self.method}")


@dataclass(frozen=True, slots=True)
class Match:
    """All given conditions must hold; an empty one matches everything."""

    hosts: tuple[str, ...] = ()
    """Lower-case; `*.example.com` stands for one or more labels in front, `*` for any host. With a port behind it
    (`payments:8080`) it is that of a client who asks for this port alone."""
    path: PathMatch | None = None
    methods: frozenset[str] = frozenset()
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    grpc: GrpcMatch | None = None
    """Excludes `path`."""
    clients: tuple[str, ...] = ()
    """Who the client is, by its verified certificate: any of these (`client_tls.is_client`)."""
    port: int | None = None
    """That the client asks for; excludes one behind a host."""

    def path_asked(self) -> PathMatch | None:
        """The condition on the path, whichever key says it."""
        return self.path if self.grpc is None else self.grpc.path()
