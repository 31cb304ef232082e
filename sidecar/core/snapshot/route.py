"""What is done with the requests of one route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum

from sidecar.core.actions.policy import EVERYBODY, ClientPolicy, CorsPolicy, RedirectPolicy, RespondPolicy
from sidecar.core.actions.template import Value
from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot.breaker import BreakerMode, BreakerPolicy
from sidecar.core.snapshot.deadline import AdmissionPolicy, DeadlinePolicy, RouteTimeouts
from sidecar.core.snapshot.listener import Direction
from sidecar.core.snapshot.match import Match
from sidecar.core.snapshot.tries import HedgePolicy, MirrorPolicy, RetryPolicy
from sidecar.core.snapshot.upstream import Upstream


class WhenOpen(Enum):
    """Where the share of a weighted upstream goes whose breaker refuses."""

    SHIFT = "shift"
    """To the others, within their limits."""
    KEEP = "keep"
    """Nowhere: it is refused."""


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
