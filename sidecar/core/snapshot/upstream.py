"""Where requests go: endpoints, how one is chosen, and which are left out."""

from __future__ import annotations

from enum import Enum

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot.endpoint import Endpoint, HttpVersion
from sidecar.core.snapshot.modes import Mode
from sidecar.core.snapshot.tls import UpstreamTls


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    max_connections: int = 1024
    max_pending: int = 1024
    """Exchanges that may wait for a connection."""
    max_requests: int = 1024
    """Exchanges in flight at once."""
    adaptive: Mode = Mode.OFF
    """Whether a limit below `max_requests` is found by the time that answers take."""


class Balancing(Enum):
    """By what an endpoint of several is chosen."""

    LEAST_REQUEST = "least_request"
    ROUND_ROBIN = "round_robin"
    PEAK_EWMA = "peak_ewma"
    RING_HASH = "ring_hash"


class HashOn(Enum):
    """Where the key of `ring_hash` stands."""

    HEADER = "header"
    COOKIE = "cookie"
    CLIENT = "client"
    """The address of the client."""


@dataclass(frozen=True, slots=True)
class HashKey:
    """What requests have in common that are to go to the same endpoint."""

    on: HashOn
    name: bytes = b""
    """Of the header field, in lower case, or of the cookie."""


@dataclass(frozen=True, slots=True)
class BalancingPolicy:
    policy: Balancing = Balancing.LEAST_REQUEST
    slow_start_seconds: float = 0.0
    """In which a new endpoint comes to its whole share; 0: at once."""
    hash_key: HashKey | None = None
    """For `ring_hash`."""
    prefers_zone: bool = True
    """Endpoints of our own zone go first, where it is known of all."""


@dataclass(frozen=True, slots=True)
class EjectionPolicy:
    """When an endpoint of several is left out, and for how long (SPEC-UPSTREAM, Ejection)."""

    is_on: bool = True
    consecutive_failures: int = 5
    """0: not judged."""
    failure_rate_threshold: float = 0.85
    minimum_calls: int = 20
    """Of one endpoint within the interval; below it no rate is judged."""
    interval_seconds: float = 10.0
    slower_than_peers: float | None = None
    """An endpoint whose median is this many times that of its peers is left out, too; None: not judged."""
    base_seconds: float = 30.0
    max_seconds: float = 300.0
    max_ejected: float = 0.5
    """The largest share of the endpoints that are left out at once."""
    panic: float = 0.0
    """With a smaller share of usable endpoints than this, all are used alike; 0: never."""


class CheckKind(Enum):
    """What the sidecar asks of an endpoint by itself."""

    HTTP = "http"
    """A GET, whose answer has a status from 200 to 399."""
    TCP = "tcp"
    """A connection, with its TLS handshake where the upstream has one."""
    GRPC = "grpc"
    """The service `grpc.health.v1.Health` says SERVING."""


@dataclass(frozen=True, slots=True)
class CheckPolicy:
    """One question by the sidecar itself."""

    path: str | None = "/"
    """With HTTP: of what."""
    timeout_seconds: float = 1.0
    """From the search for a connection to the end of the answer."""
    service: str | None = None
    """With gRPC: of which service; empty for the server as a whole."""
    is_tcp: bool | None = None
    """A connection is all that is asked for. One of these three is set."""
    host: str | None = None
    """What `Host` says; None: what is configured of the place that is asked."""

    @property
    def kind(self) -> CheckKind:
        if self.is_tcp:
            return CheckKind.TCP
        return CheckKind.HTTP if self.service is None else CheckKind.GRPC

    @property
    def told(self) -> str:
        """For people: what is asked."""
        if self.kind is CheckKind.HTTP:
            return self.path or "/"
        if self.kind is CheckKind.TCP:
            return "tcp"
        return f"grpc.health.v1 of {self.service}" if self.service else "grpc.health.v1"


@dataclass(frozen=True, slots=True)
class HealthCheckPolicy:
    """How each endpoint of an upstream is asked, all the time, whether it is well."""

    check: CheckPolicy = CheckPolicy()
    interval_seconds: float = 5.0
    healthy: int = 2
    """Checks in a row that must pass for an unhealthy endpoint to be used again."""
    unhealthy: int = 3
    """Checks in a row that must fail for an endpoint to be left out."""


@dataclass(frozen=True, slots=True)
class BackAfter:
    """When an upstream has its load back."""

    share: float = 0.7
    """This much of its endpoints has been usable..."""
    seconds: float = 30.0
    """...for so long."""


@dataclass(frozen=True, slots=True)
class FailoverPolicy:
    """Which upstreams take over from one that has too few usable endpoints."""

    to: tuple[str, ...]
    """Their names, in the order in which they are asked."""
    below: float = 0.5
    """It begins when a smaller share of the endpoints than this is usable."""
    back: BackAfter = BackAfter()
    """When it ends."""


@dataclass(frozen=True, slots=True)
class Upstream:
    name: str
    endpoints: tuple[Endpoint, ...]
    limits: UpstreamLimits = UpstreamLimits()
    connect_seconds: float = 5.0
    idle_seconds: float = 60.0
    """An idle pooled connection is closed after this long."""
    is_mesh: bool = False
    """A sidecar of ours stands there too, so its refusals are known as such (SPEC 3)."""
    protocol: HttpVersion = HttpVersion.HTTP1
    tls: UpstreamTls | None = None
    """None: clear text."""
    ejection: EjectionPolicy = EjectionPolicy()
    balancing: BalancingPolicy = BalancingPolicy()
    health_check: HealthCheckPolicy | None = None
    """None: endpoints are judged by their requests alone."""
    failover: FailoverPolicy | None = None
    """None: nobody takes over."""

    def keeps_breakers_of(self, before: Upstream) -> bool:
        """Whether what was learned of `before` is still true of this: one of its endpoints, as written, stays."""
        return not set(self.endpoints).isdisjoint(before.endpoints)
