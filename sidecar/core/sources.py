"""What telemetry reads when it collects, instead of being told: live state as plain, immutable values.

`runtime/` gives a callable that builds one `Sources` at each collection (every few seconds, from a thread, so
it must only read). Counters here may start again from zero when their owner is replaced by a reload; readers
of Prometheus and OTLP treat that as a counter reset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

from sidecar.core.dataclass import dataclass
from sidecar.core.ejection.change import EjectionReason, Health
from sidecar.core.health import CheckEnd, CheckState
from sidecar.core.snapshot import Upstream
from sidecar.core.tls_numbers import CertificateNumbers
from sidecar.core.transition import State


@dataclass(frozen=True, slots=True)
class BreakerReading:
    """One breaker's state and its counters since it was made."""

    route: str
    upstream: str
    state: State
    successful: int = 0
    failed: int = 0
    ignored: int = 0
    """Outcomes that said nothing about the upstream."""
    rejected: int = 0
    """Exchanges that it did not let through."""
    is_probe_due: bool = False
    """Open, its wait is over, and nobody has asked since."""
    is_overridden: bool = False
    """An operator holds it, open or closed."""
    opened_at: float = 0.0
    """When it last opened, in seconds since the epoch; 0: not since the process began."""
    timed_out: int = 0
    slow: int = 0
    candidate: State | None = None
    """Of its second policy; None without one."""
    would_have_rejected: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Of requests that went, by `active` or `candidate`, whichever only counts, and by what came of them."""


@dataclass(frozen=True, slots=True)
class AdaptiveNumbers:
    """One upstream's adaptive limit at this moment, and its counters since it was made."""

    limit: int
    base_seconds: float = 0.0
    """0 before there is one."""
    in_flight: int = 0
    refused: int = 0
    spared: int = 0
    """Above the limit, and let through by `observe`."""
    changes: Mapping[str, int] = field(default_factory=dict)
    """Of the limit, by reason."""


@dataclass(frozen=True, slots=True)
class UpstreamNumbers:
    """One upstream's connections and queue at this moment."""

    name: str
    active: int = 0
    """Connections that carry an attempt."""
    idle: int = 0
    pending: int = 0
    """Exchanges that wait for a connection."""
    in_process: int = 0
    """Connections to endpoints that are this very pod, so far, which a listener of this process serves."""
    endpoints: Mapping[Health, int] = field(default_factory=dict)
    """How many there are, by what is thought of them."""
    ejections: Mapping[EjectionReason, int] = field(default_factory=dict)
    """How often one was left out."""
    checked: Mapping[CheckState, int] = field(default_factory=dict)
    """Endpoints by what health checks have shown of them; empty where there are none."""
    checks: Mapping[CheckEnd, int] = field(default_factory=dict)
    """Health checks that have ended."""
    checks_delayed: int = 0
    """Those that waited, since too many others were under way."""
    waits: tuple[Sequence[int], float] = ((), 0.0)
    """A histogram's counts and sum, by `numbers.DURATION_BOUNDS`: how long attempts had no connection."""
    server: tuple[str, int | None] = ("", None)
    """`server.address` and `server.port` for metrics, see `server_of`."""
    scheme: str = "http"
    """`https` where it is spoken to by TLS."""
    adaptive: AdaptiveNumbers | None = None
    """None with `limits.adaptive: off`."""


@dataclass(frozen=True, slots=True)
class FailoverReading:
    """One upstream from which others take over, as one route sees it."""

    route: str
    upstream: str
    kept: float
    """The share of its load that it keeps."""
    moved: Mapping[str, int] = field(default_factory=dict)
    """Requests that others took, by upstream."""


def server_of(upstream: Upstream) -> tuple[str, int | None]:
    """The configured address that stands for `upstream` in metrics.

    Its only endpoint's host (or socket path) and port; of several, the upstream's name, and the port if all
    share one. Never what DNS answered: those addresses come and go, and would make series without end.
    """
    ports = {endpoint.port or None for endpoint in upstream.endpoints}
    port = ports.pop() if len(ports) == 1 else None
    if len(upstream.endpoints) == 1:
        only = upstream.endpoints[0]
        return only.path or only.host, port
    return upstream.name, port


@dataclass(frozen=True, slots=True)
class OverloadNumbers:
    """One listener's overload at this moment, and its counters since it was made."""

    listener: str
    is_on: bool = False
    refused: int = 0
    """Requests answered 503 because they would have had to wait for too long."""
    left: int = 0
    """Clients that went away while they waited for their turn."""
    waits_for_room: int = 0
    """Pauses in accepting, for want of open files or of memory."""
    turned_away: int = 0
    """Clients beyond the open files there are, whose first request was answered 503."""


@dataclass(frozen=True, slots=True)
class LoopNumbers:
    """The event loop's turns."""

    lag: tuple[Sequence[int], float] = ((), 0.0)
    """A histogram's counts and sum, by `numbers.LAG_BOUNDS`; no counts before there are any."""
    throttled_turns: int = 0
    """In which the kernel stopped the process for its CPU limit."""
    ends_put_off: int = 0
    """Ends of what was under way that had to wait for a later turn, since many came together."""


@dataclass(frozen=True, slots=True)
class ConfigNumbers:
    """The configuration in use, and how its reloads went."""

    generation: int = 1
    reloads_succeeded: int = 0
    reloads_failed: int = 0
    is_last_reload_successful: bool = True
    """True also before the first reload: the configuration at start was good."""
    age_seconds: float = 0.0
    """Since the active snapshot was put in place."""


@dataclass(frozen=True, slots=True)
class MemoryNumbers:
    """What all connections hold, in bytes, against what they may hold."""

    used_bytes: int = 0
    limit_bytes: int = 0
    closed: Mapping[str, int] = field(default_factory=dict)
    """Connections that were closed to give memory back, by what they held."""
    refused: int = 0
    """Requests that were answered 503 for want of it."""


@dataclass(frozen=True, slots=True)
class PassedNumbers:
    """What no route names and is passed through (SPEC-PROTOCOLS 14)."""

    destinations: int = 0
    """That are known now."""
    passed: int = 0
    """Requests and connections, so far."""
    closed: int = 0
    """Of those, refused for their address or port."""
    evicted: int = 0
    """Destinations that left the full table."""


@dataclass(frozen=True, slots=True)
class FleetNumbers:
    """How this replica stands to those that its breakers act as one with."""

    is_linked: bool
    replicas: int
    """As far as is known, with this one."""
    written: int
    """Times that something was told."""
    read: int
    """Times that something was heard."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Links that ended and tries that failed, by reason."""
    dropped: int = 0
    """Batches that found no room."""
    dissents: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    """By route and upstream: whether this replica's own evidence is against the fleet's state."""


@dataclass(frozen=True, slots=True)
class ProcessNumbers:
    """What the process takes of its host."""

    cpu_seconds: float
    """User's and system's."""
    resident_bytes: int
    virtual_bytes: int
    open_files: int
    max_open_files: int
    started_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class WorkerNumbers:
    """One of several workers, beside the sums."""

    number: int
    is_there: bool
    deaths: int
    """Since the pod began, as far as this control process knows."""
    requests: int
    """That the process which is there has answered."""
    process: ProcessNumbers | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that is pulled at one collection."""

    breakers: Sequence[BreakerReading] = ()
    upstreams: Sequence[UpstreamNumbers] = ()
    failovers: Sequence[FailoverReading] = ()
    config: ConfigNumbers = ConfigNumbers()
    memory: MemoryNumbers = MemoryNumbers()
    loop: LoopNumbers = LoopNumbers()
    overloads: Sequence[OverloadNumbers] = ()
    secured_listeners: frozenset[str] = frozenset()
    """Those that accept TLS."""
    certificates: Sequence[CertificateNumbers] = ()
    """All that are in use."""
    certificate_changes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By owner and `success` or `failure`: other ones that were used, and that could not be."""
    handshakes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """TLS, by listener and how they ended."""
    admission: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Requests whose budget was too small, by route, of those with an `admission`, and `refused` or `spared`."""
    copies: Mapping[str, int] = field(default_factory=dict)
    """Of requests, under way: by route, of those with a `mirror`."""
    passed: PassedNumbers = PassedNumbers()
    callers_evicted: int = 0
    """Live inbound exchanges pushed out of the full table of callers (SPEC 5.3)."""
    callers_tied: int = 0
    """Calls of the app that could be tied to a request to it."""
    callers_untied: int = 0
    """Those that could not, though requests were under way."""
    callers_across: Mapping[str, int] = field(default_factory=dict)
    """Of the table that workers share, by event (`forwarding/notices.py`); empty with one worker."""
    balanced: Mapping[str, int] = field(default_factory=dict)
    """Connections of listeners with `balance: exact`, by what came of them; empty where there is no such listener."""
    connections_refused: Mapping[str, int] = field(default_factory=dict)
    """By listener, `admin` and `probes` among them: closed because there were too many."""
    dropped: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Telemetry that was lost, by (signal, reason)."""
    fleet: FleetNumbers | None = None
    """None without one."""
    process: ProcessNumbers | None = None
    """None where the system does not tell."""
    workers: Sequence[WorkerNumbers] = ()
    """Empty where one process does it all."""
    build: tuple[tuple[str, str], ...] = ()
    """The sidecar's version and what it runs on."""
    resource: tuple[tuple[str, str], ...] = ()
    """Who is scraped."""
    metrics_prefix: str | None = None
    """See `families.named`."""
    native_histograms: bool = False
    """A scraper that asks for protobuf gets it, with exponential buckets."""


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """How one reload went: a span `config.reload` and a line in the log."""

    at: float
    """Seconds on the monotonic clock."""
    seconds: float
    """How long reading, checking and swapping took."""
    generation: int
    """Of the snapshot in use afterwards."""
    is_success: bool
    routes_added: int = 0
    routes_removed: int = 0
    routes_changed: int = 0
    breakers_kept: int = 0
    breakers_reset: int = 0
    problems: tuple[str, ...] = ()
    """`FILE:LINE:COLUMN: message`; empty after a success."""

    def effect(self) -> dict[str, object]:
        """What came of it, as the log and `/events` tell it alike."""
        return {
            "routes": {
                "added": self.routes_added,
                "removed": self.routes_removed,
                "changed": self.routes_changed,
            },
            "breakers": {"kept": self.breakers_kept, "reset": self.breakers_reset},
            "problems": list(self.problems),
        }
