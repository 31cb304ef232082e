"""One immutable, validated configuration: what `config/` builds and everything else reads.

A snapshot is shared freely between threads and exchanges because nothing in it can change. All durations are
seconds, all shares are 0..1, all sizes are bytes; header names are lower-case bytes. The values here are valid
from birth: `config/load` has checked them against each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Protocol

from sidecar.core.actions.policy import EVERYBODY, ClientPolicy, CorsPolicy, RedirectPolicy, RespondPolicy
from sidecar.core.actions.template import Value
from sidecar.core.grpc_status import GrpcStatus


class Mode(Enum):
    """What a policy does with what it finds: act, only measure, or nothing."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    OFF = "off"


class BreakerMode(Enum):
    ENFORCE = "enforce"
    METRICS_ONLY = "metrics_only"
    DISABLED = "disabled"
    FORCED_OPEN = "forced_open"


class Scope(Enum):
    """Who acts as one breaker."""

    PROCESS = "process"
    FLEET = "fleet"
    """All replicas that `share` brings together."""


class WindowType(Enum):
    TIME = "time"
    COUNT = "count"


class PathKind(Enum):
    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"


class Failure(Enum):
    """A class of outcomes that `failure_on` may name, besides single statuses of HTTP or gRPC."""

    STATUS_5XX = "5xx"
    CONNECT = "connect_failure"
    RESET = "reset"
    TIMEOUT = "timeout"


class CancelWithCaller(Enum):
    SAFE = "safe"
    ALL = "all"
    OFF = "off"


class WhenOpen(Enum):
    """Where the share of a weighted upstream goes whose breaker refuses."""

    SHIFT = "shift"
    """To the others, within their limits."""
    KEEP = "keep"
    """Nowhere: it is refused."""


class Trust(Enum):
    """Whether a listener believes the mesh-internal header fields of its callers."""

    ALL = "all"
    NONE = "none"


class Ambiguous(Enum):
    """What a listener does where a match asks for a field or parameter that can be read in two ways."""

    REFUSE = "refuse"
    FIRST = "first"
    """Of parameters that come twice the first counts; the values of fields are joined (RFC 9110 5.3)."""


class Dealt(Enum):
    """Who decides which of several workers serves a connection."""

    KERNEL = "kernel"
    EXACT = "exact"
    """Accepted in one place, and handed to the worker that has fewest."""


class Direction(Enum):
    """Whose calls a listener takes: those to this pod's own app, or those of the app to others."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Unmatched(Enum):
    """What becomes of what no route of a listener names (SPEC-PROTOCOLS 14)."""

    REFUSE = "refuse"
    PASS_THROUGH = "pass_through"
    """It goes to the host that was asked for, or where an intercepted connection was going."""


PASS_THROUGH = "pass_through"
"""The name of the route of what no route names, and of its upstream in metrics: one set of series for all hosts."""


class Forwarded(Enum):
    """What becomes of `Forwarded` (RFC 7239) and `X-Forwarded-For`, `-Proto` and `-Host` on their way."""

    SET = "set"
    """What came is dropped; what this listener has seen takes its place."""
    APPEND = "append"
    """What this listener has seen goes behind what came."""
    KEEP = "keep"
    """What came goes on, and nothing is added."""
    OFF = "off"
    """What came is dropped, and nothing is added."""


_ORIGINAL = "original"


class Source(Enum):
    """Who says which endpoints an entry of an upstream stands for; the value is what is written before `://`."""

    ADDRESS = "address"
    """It is one itself, or a name whose addresses are."""
    SRV = "srv"
    FILE = "file"
    KUBERNETES = "kubernetes"


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


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    connections: int = 10_000
    """Accepted at once; the next one is closed at once and counted."""
    head_bytes: int = 64 * 1024
    """Request line and header fields of one request (431 beyond)."""
    headers: int = 100
    """Header fields of one request (431 beyond)."""
    url_bytes: int = 16 * 1024
    """Request target (414 beyond)."""
    parameters: int = 1024
    """Of the query, parted by `&` or `;` (431 beyond)."""
    cookies: int = 256
    """Pairs in all `Cookie` fields (431 beyond); browsers keep at most 180 for a site."""
    connection_options: int = 32
    """In all `Connection` fields (431 beyond)."""


@dataclass(frozen=True, slots=True)
class ListenerTimeouts:
    head_seconds: float = 10.0
    """From a request's first byte to the end of its head (408-like close beyond)."""
    idle_seconds: float = 75.0
    """Between two requests on one connection."""
    body_seconds: float = 30.0
    """Without any progress while a body is being read from, or an answer written to, the client."""
    handshake_seconds: float = 10.0
    """From the connection to the end of its TLS handshake."""
    detect_seconds: float = 1.0
    """For a client's first bytes, where it is not known what it speaks; then its destination may speak first."""


class HttpVersion(Enum):
    """What is spoken on a connection."""

    AUTO = "auto"
    """Of a listener: whatever the client begins with. Of an upstream: what the handshake agrees on (ALPN)."""
    HTTP1 = "http1"
    HTTP2 = "http2"
    """In clear text by prior knowledge (RFC 9113 3.3)."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A certificate with its key, as PEM files."""

    chain: str
    """The certificate, then those that lead to its CA."""
    key: str


class ClientCertificate(Enum):
    """Whether a listener asks its clients for one."""

    OFF = "off"
    REQUEST = "request"
    """None is fine, a bad one ends the handshake."""
    REQUIRE = "require"


class TlsVersion(Enum):
    """The oldest that is spoken."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


@dataclass(frozen=True, slots=True)
class ListenerTls:
    """How a listener proves who it is, and what it asks of its clients. `certificate` or `certificates` is given."""

    certificate: CertificateFiles | None = None
    certificates: tuple[CertificateFiles, ...] = ()
    """Of which the name that a client asks for (SNI) chooses; the first where none fits."""
    client_ca: str | None = None
    """A PEM file: who signs the certificates of clients."""
    client: ClientCertificate = ClientCertificate.OFF
    minimum_version: TlsVersion = TlsVersion.TLS_1_2

    @property
    def pairs(self) -> tuple[CertificateFiles, ...]:
        """All of them, however they were written."""
        return self.certificates if self.certificate is None else (self.certificate,)


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """What an upstream has to prove, and how the sidecar proves itself to it."""

    ca: str | None = None
    """A PEM file: who signs its certificates; None: those whom the system trusts."""
    server_name: str | None = None
    """The name asked for (SNI) and checked; None: that of the endpoint."""
    certificate: CertificateFiles | None = None
    """Shown where the upstream asks for one."""
    identities: tuple[str, ...] = ()
    """One of them must stand in its certificate, in place of the name; empty: the name must."""
    alpn: tuple[str, ...] = ()
    """Offered in this order; empty: what `protocol` says."""


OPAQUE_PORTS = frozenset({21, 22, 25, 110, 143, 587, 3306, 4444, 5432, 6379, 9300, 11211, 27017})
"""FTP, SSH, mail (SMTP, POP3, IMAP), MySQL, Galera, PostgreSQL, Redis, Elasticsearch, Memcached, MongoDB: in many of
these the server speaks first, and none is HTTP."""


@dataclass(frozen=True, slots=True)
class Listener:
    name: str
    address: Address
    limits: ListenerLimits = ListenerLimits()
    timeouts: ListenerTimeouts = ListenerTimeouts()
    trust: Trust = Trust.ALL
    direction: Direction = Direction.INBOUND
    forwarded: Forwarded = Forwarded.APPEND
    ambiguous: Ambiguous = Ambiguous.FIRST
    protocol: HttpVersion = HttpVersion.AUTO
    balance: Dealt = Dealt.KERNEL
    max_connection_age_seconds: float = 600.0
    """Then a connection ends with its next answer; `math.inf`: never for its age."""
    tls: ListenerTls | None = None
    """None: clear text."""
    unmatched: Unmatched = Unmatched.REFUSE
    pass_through_ports: frozenset[int] = frozenset()
    """Of destinations that may be passed through to; empty: all."""
    opaque_ports: frozenset[int] = OPAQUE_PORTS
    """Of destinations whose bytes are passed on without a look at them."""


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


@dataclass(frozen=True, slots=True)
class HeaderOps:
    """Applied in the order remove, set, add. Names are lower-case."""

    set: tuple[tuple[bytes, Value], ...] = ()
    add: tuple[tuple[bytes, Value], ...] = ()
    remove: frozenset[bytes] = frozenset()

    def then(self, later: HeaderOps) -> HeaderOps:
        """What both do, one after the other."""
        if later == HeaderOps():
            return self
        names = later.remove | {name for name, _ in later.set}
        return HeaderOps(
            tuple(pair for pair in self.set if pair[0] not in names) + later.set,
            tuple(pair for pair in self.add if pair[0] not in names) + later.add,
            self.remove | later.remove | {name for name, _ in self.set},
        )


@dataclass(frozen=True, slots=True)
class Rewrite:
    prefix: str | None = None
    """Replaces the matched prefix (needs a prefix match), as in Gateway API's ReplacePrefixMatch."""
    host: str | None = None
    path: str | None = None
    """Replaces the whole path; excludes `prefix`."""


@dataclass(frozen=True, slots=True)
class ShareFilter:
    """What is changed for one upstream of several alone, after what the route changes."""

    request_headers: HeaderOps = HeaderOps()
    response_headers: HeaderOps = HeaderOps()


@dataclass(frozen=True, slots=True)
class RouteTimeouts:
    """Any of them may be `math.inf`: the file says `off`, and there is no such limit."""

    request_seconds: float = 15.0
    """All attempts together."""
    attempt_seconds: float | None = None
    """One attempt; None as well as `math.inf`: it may take all that is left."""
    idle_seconds: float = 300.0
    """Without a byte in either direction, for the exchange's bodies and for tunnels."""
    head_seconds: float | None = None
    """From the sending of an attempt to the final head of its answer; None as well as `math.inf`: no such limit."""


TIMEOUT_HEADERS = (
    b"grpc-timeout",
    b"x-envoy-expected-rq-timeout-ms",
    b"x-envoy-upstream-rq-timeout-ms",
    b"x-request-timeout-ms",
    b"l5d-timeout",
)


@dataclass(frozen=True, slots=True)
class DeadlinePolicy:
    mode: Mode = Mode.ENFORCE
    max_seconds: float | None = None
    """Cap on what a caller may ask for."""
    offset_seconds: float = 0.005
    """Taken off what a caller or a trace gave; at most a tenth of that budget."""
    headers: tuple[bytes, ...] = TIMEOUT_HEADERS
    recover_from_trace: bool = True
    cancel_with_caller: CancelWithCaller = CancelWithCaller.SAFE
    inject_baggage: bool = False


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    mode: Mode = Mode.OFF
    min_budget: float | str = "p50"
    """Seconds, or `p50`/`p95` of the route's own recent successful attempts."""
    max_reject_ratio: float = 0.2


@dataclass(frozen=True, slots=True)
class WindowPolicy:
    type: WindowType = WindowType.TIME
    size: float = 10.0
    """Seconds for `time`, calls for `count`."""


@dataclass(frozen=True, slots=True)
class CandidatePolicy:
    """The thresholds of a second policy that sees the same traffic and never acts (each one unset = as active)."""

    window: WindowPolicy | None = None
    minimum_calls: int | None = None
    failure_rate_threshold: float | None = None
    consecutive_failures: int | None = None
    slow_call_seconds: float | None = None
    slow_call_rate_threshold: float | None = None
    open_seconds: float | None = None
    max_open_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    mode: BreakerMode = BreakerMode.ENFORCE
    window: WindowPolicy = WindowPolicy()
    minimum_calls: int = 20
    failure_rate_threshold: float = 0.5
    consecutive_failures: int = 5
    """0 = this trigger is off."""
    slow_call_seconds: float | None = None
    slow_call_rate_threshold: float = 0.8
    open_seconds: float = 5.0
    max_open_seconds: float = 60.0
    half_open_max_calls: int = 1
    half_open_successes: int = 1
    half_open_max_wait_seconds: float = 10.0
    ramp_seconds: float = 0.0
    failure_on: frozenset[Failure | GrpcStatus | int] = frozenset(
        {Failure.STATUS_5XX, Failure.CONNECT, Failure.RESET, Failure.TIMEOUT}
    )
    """Classes and single statuses (ints)."""
    failure_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Response header fields (lower-case name, exact value) that mark a failure."""
    count_timeout_after_seconds: float | None = None
    """A timed-out attempt that had less than this at the upstream says nothing; None: `auto`, by the route's own
    successes (`core/breaker/counting.py`)."""
    counts_rate_limited: bool = True
    """Whether 429 counts in the failure rate; not on inbound routes, where it is some caller's own quota."""
    judge_after_seconds: float = 1.0
    """After a good final head, an attempt that still runs is judged by it."""
    warm_up_seconds: float = 30.0
    """Connections refused before the first answer of an upstream open nothing, for at most this long; 0 = off."""
    half_open_check: CheckPolicy | None = None
    """How the sidecar itself probes an upstream whose breaker has waited; None: a request is the probe."""
    scope: Scope = Scope.PROCESS
    candidate: CandidatePolicy | None = None


@dataclass(frozen=True, slots=True)
class WeightsPolicy:
    """What becomes of the weights of a route while a breaker refuses."""

    when_open: WhenOpen = WhenOpen.SHIFT
    shift_up_to: float = 2.0
    """No upstream gets more than this many times its own share."""


@dataclass(frozen=True, slots=True)
class FallbackPolicy:
    """Either a fixed response (status, headers, body) or the name of another upstream."""

    status: int = 200
    headers: tuple[tuple[bytes, Value], ...] = ()
    body: bytes = b""
    upstream: str | None = None


class RetryOn(Enum):
    """After what a request is tried again; a status may stand beside them."""

    CONNECT_FAILURE = "connect_failure"
    """Refused, no such name, no connection in time: it has reached nobody."""
    REFUSED = "refused"
    """The upstream has said that it did nothing with it, or the breaker of the next sidecar was open."""
    RESET = "reset"
    ATTEMPT_TIMEOUT = "attempt_timeout"
    STATUS_5XX = "5xx"
    GATEWAY_ERROR = "gateway_error"
    """502, 503, 504."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    attempts: int = 0
    """Tries after the first; 0: none."""
    on: frozenset[RetryOn | int] = frozenset({RetryOn.CONNECT_FAILURE, RetryOn.REFUSED})
    base_seconds: float = 0.025
    max_seconds: float = 0.25
    ratio: float = 0.2
    """Retries that each request allows."""
    min_per_second: float = 3.0
    is_non_idempotent: bool = False
    """Methods that are not idempotent are tried again too, where the upstream may have acted on the request."""
    buffer_bytes: int = 64 * 1024
    """A longer request body is not kept, and not sent again."""
    is_nested: bool = False
    """What is a retry already is tried again."""


P95 = "p95"
"""What a route's own answers took, in the place of a duration."""


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """A second try beside one that is slow, of requests that do no harm if they are sent twice."""

    after: float | str = P95
    """Seconds from the beginning of a try, or `p95` of the route's own recent successes."""
    most: int = 1
    """Of one request; each begins `after` later than the one before."""


@dataclass(frozen=True, slots=True)
class MirrorPolicy:
    """A copy of requests for another upstream, whose answers nobody gets."""

    upstream: str = ""
    share: float = 1.0
    """Of the requests."""
    methods: frozenset[str] = frozenset({"GET", "HEAD", "OPTIONS"})
    """The safe ones (RFC 9110 9.2.1), unless the route says more."""
    buffer_bytes: int = 64 * 1024
    """Of a body that the copy's upstream has not taken yet; a copy that falls behind further is cut."""
    attempt_seconds: float = 5.0
    """For a whole copy, its answer included."""
    most_in_flight: int = 64
    """Copies at a time; further requests are not copied."""


@dataclass(frozen=True, slots=True)
class Route:
    name: str
    """Its identity across reloads."""
    listener: str
    matches: tuple[Match, ...]
    """Any of them; never empty (one empty `Match` stands for "everything")."""
    upstreams: tuple[tuple[str, int], ...]
    """Upstream names with their weights; at least one weight above zero. Empty only with `redirect` or `respond`."""
    filters: tuple[tuple[str, ShareFilter], ...] = ()
    """By upstream; those that change nothing are left out."""
    redirect: RedirectPolicy | None = None
    respond: RespondPolicy | None = None
    """Excludes `redirect`."""
    rewrite: Rewrite = Rewrite()
    request_headers: HeaderOps = HeaderOps()
    response_headers: HeaderOps = HeaderOps()
    timeouts: RouteTimeouts = RouteTimeouts()
    deadline: DeadlinePolicy = DeadlinePolicy()
    admission: AdmissionPolicy = AdmissionPolicy()
    breaker: BreakerPolicy = BreakerPolicy()
    retry: RetryPolicy = RetryPolicy()
    hedge: HedgePolicy | None = None
    mirror: MirrorPolicy | None = None
    fallback: FallbackPolicy | None = None
    clients: ClientPolicy = EVERYBODY
    cors: CorsPolicy | None = None
    max_request_body_bytes: int | None = None
    """A longer body is refused; None: any length."""
    shares: WeightsPolicy = WeightsPolicy()
    is_critical: bool = False
    """Refused last in an overload."""
    direction: Direction = Direction.INBOUND
    """That of its listener."""
    hidden: frozenset[str] = frozenset()
    """Texts of this route that the environment gave (`${NAME}`) and that may be secrets: told to nobody."""

    def asked_upstreams(self, upstreams: Mapping[str, Upstream]) -> tuple[str, ...]:
        """All that its requests may go to, each once: its own, its fallback's, and who takes over from them."""
        own = [name for name, _ in self.upstreams]
        if self.fallback is not None and self.fallback.upstream is not None:
            own.append(self.fallback.upstream)
        failovers = (upstreams[name].failover for name in own)
        others = [name for one in failovers if one is not None for name in one.to]
        return tuple(dict.fromkeys((*own, *others)))

    def breaker_of(self, upstream: Upstream) -> BreakerPolicy:
        """The policy of its breaker to this upstream. `forced_open` is said of the route's own upstreams: their
        fallback is there to serve. Where others take over from it, and its health is checked, the same check is the
        breaker's probe: no request has to be."""
        policy = self.breaker
        if policy.mode is BreakerMode.FORCED_OPEN and all(
            name != upstream.name for name, _ in self.upstreams
        ):
            policy = replace(policy, mode=BreakerMode.ENFORCE)
        health = upstream.health_check
        if policy.half_open_check is None and health is not None and upstream.failover is not None:
            seconds = min(health.check.timeout_seconds, policy.half_open_max_wait_seconds)
            policy = replace(policy, half_open_check=replace(health.check, timeout_seconds=seconds))
        return policy


class LogFormat(Enum):
    JSON = "json"
    TEXT = "text"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class AccessLog:
    format: LogFormat = LogFormat.JSON
    sample_ratio: float = 1.0
    attempts: bool = False
    """Each line tells of all its attempts."""


@dataclass(frozen=True, slots=True)
class Otlp:
    endpoint: str
    protocol: str = "grpc"
    """`grpc` or `http/protobuf`."""
    headers: tuple[tuple[str, str], ...] = ()
    compression: str | None = None


class ClientSpans(Enum):
    """Which attempts get a CLIENT span."""

    AUTO = "auto"
    """All but the first one of an inbound route without `retry` and `hedge`: the SERVER span stands for it."""
    ALL = "all"


DURATION_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds; the semantic conventions' advice for both HTTP duration histograms."""

MOST_SERIES: Final = 20_000
"""Rows of both HTTP duration histograms; about 10 MB."""


class Propagator(Enum):
    """A way to hand a trace's context on. The words are those of `OTEL_PROPAGATORS`."""

    TRACECONTEXT = "tracecontext"
    BAGGAGE = "baggage"
    B3 = "b3"
    B3_MULTI = "b3multi"
    """Reads what `b3` reads; where none came, it writes several fields."""
    JAEGER = "jaeger"
    XRAY = "xray"
    DATADOG = "datadog"


@dataclass(frozen=True, slots=True)
class Telemetry:
    service_name: str | None = None
    otlp: Otlp | None = None
    """None = nothing is exported."""
    trace_sample_ratio: float = 0.01
    client_spans: ClientSpans = ClientSpans.AUTO
    propagators: tuple[Propagator, ...] = (Propagator.TRACECONTEXT, Propagator.BAGGAGE, Propagator.B3)
    """The first one whose context is valid is believed."""
    metrics_interval_seconds: float = 10.0
    duration_bounds: tuple[float, ...] = DURATION_BOUNDS
    """Upper bounds of the buckets of how long requests took."""
    metrics_prefix: str | None = None
    """What stands, with a dot, before names of metrics that an instrumented app uses too; None: nothing."""
    access_log: AccessLog = AccessLog()
    logs: bool = False
    """Events and access log also as OTLP log records."""


@dataclass(frozen=True, slots=True)
class Admin:
    address: Address
    token_file: str | None = None
    trace_url: str | None = None
    """Template for links to a trace, with `{trace_id}`."""


@dataclass(frozen=True, slots=True)
class Drain:
    timeout_seconds: float = 25.0
    delay_seconds: float = 3.0
    """New connections are still served this long after the process has said that it goes."""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Of the process, over all listeners and upstreams."""

    memory_bytes: int | None = None
    """For all connections together, see `core/memory_budget.py`. None: a quarter of the container's limit, else 64
    MiB."""
    max_requests: int = 4096
    """Exchanges in flight at once."""
    series: int = MOST_SERIES
    """Of metrics, by what requests came to, see `Numbers.max_series`."""


MOST_WORKERS = 64
"""Beyond it, one control process would be what all wait for."""


@dataclass(frozen=True, slots=True)
class RedisTls:
    """What a Redis has to prove, and how the sidecar proves itself to it."""

    ca: str | None = None
    """A PEM file: who signs its certificate; None: those whom the system trusts."""
    certificate: CertificateFiles | None = None
    """Shown where it asks for one."""


@dataclass(frozen=True, slots=True)
class RedisPolicy:
    """Where the replicas of a fleet meet."""

    url: str
    password_file: str | None = None
    """Holds the password alone; read at each connection, so that another one may take its place."""
    tls: RedisTls | None = None
    prefix: str = "sidecar"
    """Of every key."""
    fleet: str | None = None
    """Replicas of one name act as one; None: the name of the service."""


@dataclass(frozen=True, slots=True)
class Share:
    """How breakers of `scope: fleet` learn of each other."""

    redis: RedisPolicy | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    listeners: Mapping[str, Listener]
    upstreams: Mapping[str, Upstream]
    routes: tuple[Route, ...]
    """In the order of the file."""
    probes: Address
    admin: Admin
    passed: Mapping[str, Route] = field(default_factory=dict)
    """By listener with `unmatched: pass_through`: the policies of what no route names."""
    telemetry: Telemetry = Telemetry()
    drain: Drain = Drain()
    limits: ProcessLimits = ProcessLimits()
    workers: int | str = 1
    """Processes that serve; `auto`: one for each core."""
    share: Share = Share()
    files: tuple[str, ...] = ()
    """Every file this snapshot was read from."""
    digest: str = ""
    """Of the files' content, to tell a real change from a touched file."""
