"""Live state → plain data for JSON. Pure: reads what it is given, keeps nothing, changes nothing.

Durations are seconds, shares 0..1, instants ISO 8601 in UTC; what is not known or does not apply is null. Names of
keys are those of the configuration and of SPEC 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from sidecar.admin.process import Cluster, Data, Standby
from sidecar.admin.recent import Recent, Sample, sample_of
from sidecar.core.breaker import Breaker
from sidecar.core.breaker.numbers import BreakerNumbers
from sidecar.core.breaker.words import because, held, since, told
from sidecar.core.candidate import candidate_policy
from sidecar.core.dataclass import dataclass
from sidecar.core.ejection.change import EndpointChange, Health
from sidecar.core.ejection.standing import Standing
from sidecar.core.errors import GONE
from sidecar.core.failover import FailoverChange
from sidecar.core.health import CheckRecord
from sidecar.core.listing import MOST_TOLD, EndpointsChange, Listing
from sidecar.core.numbers import BUDGET_SOURCES, RouteNumbers
from sidecar.core.observe import Notice
from sidecar.core.override import Order
from sidecar.core.snapshot import BreakerPolicy, Direction, Endpoint, Route
from sidecar.core.transition import Cause, State, Transition, WindowNumbers
from sidecar.core.wall import to_the_second

QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
MINUTE_SECONDS = 60.0
SHUT: Final = frozenset({State.OPEN, State.FORCED_OPEN})
"""States in which nothing goes through."""
MAX_SHUT: Final = 50
"""Breakers that `/status` names."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, and how to turn the process's monotonic seconds into a time of day."""

    now: float
    wall_offset: float

    def instant(self, at: float | None) -> str | None:
        if at is None:
            return None
        return datetime.fromtimestamp(at + self.wall_offset, UTC).isoformat(timespec="milliseconds")

    def told(self, at: float) -> str:
        """For people: to the second."""
        return to_the_second(at + self.wall_offset)


def breaker_row(breaker: Breaker, moment: Moment) -> Data:
    """One breaker in a line: for a list of all."""
    numbers = breaker.numbers(moment.now)
    return {"route": numbers.route, "upstream": numbers.upstream, **_state(breaker, numbers, moment)}


def breaker_whole(breaker: Breaker, moment: Moment, *, is_fallback: bool) -> Data:
    """Everything of one breaker: the active policy beside the candidate, and what happened."""
    numbers = breaker.numbers(moment.now)
    return {
        "route": numbers.route,
        "upstream": numbers.upstream,
        "is_fallback": is_fallback,
        **_state(breaker, numbers, moment),
        "active": {
            "policy": policy(breaker.policy),
            "state": numbers.state.value,
            "counters": counters(numbers),
            "window": window(numbers.window),
            "would_have_rejected": numbers.would_have_rejected,
            "would_have_been_fine": numbers.would_have_been_fine,
            "failures_saved": numbers.failures_saved,
        },
        "candidate": _candidate(breaker, numbers, moment),
        "history": [transition(one, moment) for one in reversed(breaker.history)],
    }


def counters(numbers: BreakerNumbers) -> Data:
    """The counters of SPEC 3: total = successful + failed + ignored + rejected + in flight."""
    return {
        "total": numbers.total,
        "successful": numbers.successful,
        "failed": numbers.failed,
        "ignored": numbers.ignored,
        "rejected": numbers.rejected,
        "in_flight": numbers.in_flight,
        "timed_out": numbers.timed_out,
        "slow": numbers.slow,
        "transitions": numbers.transitions,
        "success_rate": numbers.success_rate,
    }


def _state(breaker: Breaker, numbers: BreakerNumbers, moment: Moment) -> Data:
    next_probe_at, until, order = numbers.next_probe_at, numbers.override_until, numbers.order
    return {
        "state": numbers.state.value,
        "told": numbers.told,
        "why": _why(breaker, moment),
        "mode": numbers.mode.value,
        "ramp_share": None if numbers.ramp_share is None else round(numbers.ramp_share, 3),
        "is_overridden": numbers.is_overridden,
        "override_by": None if order is None else order.by,
        "override_since": None if order is None else moment.instant(order.since),
        "override_until": moment.instant(until),
        "override_seconds_left": _left(until, moment),
        "generation": numbers.generation,
        "failure_count": numbers.consecutive_failures,
        "total": numbers.total,
        "failed": numbers.failed,
        "rejected": numbers.rejected,
        "success_rate": numbers.success_rate,
        "failure_rate": numbers.window.failure_rate,
        "probes_in_flight": numbers.probes_in_flight,
        "candidate_state": None if numbers.candidate is None else numbers.candidate.state.value,
        "last_failure_at": moment.instant(numbers.last_failure_at),
        "last_transition_at": moment.instant(numbers.last_transition_at),
        "next_probe_at": moment.instant(next_probe_at),
        "next_probe_seconds": _left(next_probe_at, moment),
        "is_probe_due": numbers.is_probe_due,
    }


def _why(breaker: Breaker, moment: Moment) -> str:
    """Who holds it, or what opened it; empty for one that is closed by itself."""
    order = breaker.order_at(moment.now)
    return (
        breaker.why(moment.now) if order is None else held(breaker.state_at(moment.now), order, moment.told)
    )


def _left(until: float | None, moment: Moment) -> float | None:
    return None if until is None else round(max(0.0, until - moment.now), 3)


def _candidate(breaker: Breaker, numbers: BreakerNumbers, moment: Moment) -> Data | None:
    seen, thresholds = numbers.candidate, candidate_policy(breaker.policy)
    if seen is None or thresholds is None or breaker.candidate is None:
        return None
    return {
        "policy": policy(thresholds),
        "state": seen.state.value,
        "counters": counters(breaker.candidate.numbers(moment.now)),
        "window": window(seen.window),
        "would_have_rejected": seen.would_have_rejected,
        "would_have_been_fine": seen.would_have_been_fine,
        "failures_saved": seen.failures_saved,
        "history": [transition(one, moment) for one in reversed(breaker.candidate.history)],
    }


def policy(value: BreakerPolicy) -> Data:
    """The thresholds that a person compares."""
    return {
        "mode": value.mode.value,
        "sliding_window": {"type": value.window.type.value, "size": value.window.size},
        "minimum_calls": value.minimum_calls,
        "failure_rate_threshold": value.failure_rate_threshold,
        "consecutive_failures": value.consecutive_failures,
        "slow_call_duration": value.slow_call_seconds,
        "slow_call_rate_threshold": value.slow_call_rate_threshold,
        "open_for": value.open_seconds,
        "max_open_for": value.max_open_seconds,
    }


def window(value: WindowNumbers) -> Data:
    return {
        "total": value.total,
        "failed": value.failed,
        "slow": value.slow,
        "consecutive_failures": value.consecutive_failures,
        "failure_rate": value.failure_rate,
        "slow_rate": value.slow_rate,
    }


def transition(value: Transition, moment: Moment) -> Data:
    """One change of state, with the exchanges that caused it."""
    return {
        "route": value.route,
        "upstream": value.upstream,
        "sequence": value.sequence,
        "from": value.from_state.value,
        "to": value.to_state.value,
        "reason": value.reason.value,
        "at": moment.instant(value.at),
        "wait_seconds": value.wait_seconds,
        "why": because(value),
        "override": None if value.order is None else _order(value.order, moment),
        "window": window(value.window),
        "causes": [_cause(one) for one in value.causes],
    }


def _order(order: Order, moment: Moment) -> Data:
    return {
        "action": order.action.value,
        "by": order.by,
        "since": moment.instant(order.since),
        "until": moment.instant(order.until),
    }


def _cause(cause: Cause) -> Data:
    return {
        "trace_id": cause.trace_id.decode("ascii", "replace"),
        "span_id": cause.span_id.decode("ascii", "replace"),
        "request_id": cause.request_id.decode("utf-8", "replace"),
        "error_type": cause.error_type or None,
        "status": cause.status or None,
        "endpoint": cause.endpoint or None,
        "detail": cause.detail or None,
    }


def breakers_in_all(breakers: Iterable[Breaker], moment: Moment) -> Data:
    """How many are in which state, and which let nothing through (the first 50), with the reason."""
    by_state = dict.fromkeys((state.value for state in State), 0)
    shut: list[Breaker] = []
    overridden = probe_due = 0
    for breaker in breakers:
        state = breaker.state_at(moment.now)
        by_state[state.value] += 1
        overridden += breaker.order_at(moment.now) is not None
        probe_due += breaker.is_probe_due(moment.now)
        if state in SHUT:
            shut.append(breaker)
    return {
        "count": sum(by_state.values()),
        "by_state": by_state,
        "open": [_shut(breaker, moment) for breaker in shut[:MAX_SHUT]],
        "open_count": len(shut),
        "probe_due_count": probe_due,
        "overridden_count": overridden,
    }


def _shut(breaker: Breaker, moment: Moment) -> Data:
    state = breaker.state_at(moment.now)
    is_due, is_by_hand = breaker.is_probe_due(moment.now), breaker.order_at(moment.now) is not None
    return {
        "route": breaker.route,
        "upstream": breaker.upstream,
        "state": state.value,
        "told": told(state, is_probe_due=is_due, is_by_hand=is_by_hand),
        "why": _why(breaker, moment),
        "since": moment.instant(since(breaker.history)),
    }


def route(
    value: Route,
    numbers: RouteNumbers | None,
    breakers: Sequence[Breaker],
    now: float,
    recent: Recent,
    direction: Direction,
) -> Data:
    """One route: where it sends, and what came of it since it was first used, and in the last minute."""
    bounds = recent.numbers.duration_bounds
    fallback = value.fallback
    return {
        "name": value.name,
        "listener": value.listener,
        "direction": direction.value,
        "upstreams": dict(value.upstreams),
        "answers": _answers(value),
        "fallback": None if fallback is None else fallback.upstream or "response",
        "breakers": [{"upstream": one.upstream, "state": one.state_at(now).value} for one in breakers],
        **_traffic(numbers, bounds),
        "minute": minute(value.name, numbers, recent),
    }


def minute(name: str, numbers: RouteNumbers | None, recent: Recent) -> Data:
    """What came of a route in the last minute; up to a look more, or less where the process is younger."""
    bounds = recent.numbers.duration_bounds
    before, seconds = recent.before(name, MINUTE_SECONDS)
    none = Sample(0.0, 0, 0, 0, (0,) * (len(bounds) + 1))
    now = none if numbers is None else sample_of(numbers, 0.0, len(none.counts))
    if before is None or before.finished > now.finished:
        before = none
    counts = [count - earlier for count, earlier in zip(now.counts, before.counts, strict=True)]
    return {
        "seconds": round(seconds, 3),
        "finished": now.finished - before.finished,
        "errors": now.errors - before.errors,
        "gone": now.gone - before.gone,
        "duration_seconds": {name: quantile(counts, bounds, share) for name, share in QUANTILES.items()},
    }


def history(name: str, samples: Sequence[Sample]) -> Data:
    """The counters of a route at the moments at which they changed."""
    return {
        "name": name,
        "samples": [
            {
                "at_seconds": one.at,
                "finished": one.finished,
                "errors": one.errors,
                "gone": one.gone,
                "duration_counts": one.counts,
            }
            for one in samples
        ],
    }


def _answers(value: Route) -> str | None:
    if value.redirect is not None:
        return "redirect"
    return "respond" if value.respond is not None else None


def _traffic(numbers: RouteNumbers | None, bounds: tuple[float, ...]) -> Data:
    active = 0 if numbers is None else sum(numbers.active.values())
    if numbers is not None:
        numbers.fold()
    by_class: dict[str, int] = {}
    by_reason: dict[str, int] = {}
    errors, gone, seconds = 0, 0, 0.0
    durations = [0] * (len(bounds) + 1)
    for (_, status, error, _), row in [] if numbers is None else list(numbers.server.items()):
        counts, total, _ = row.state
        seconds += total
        count = sum(counts)
        key = f"{status // 100}xx"
        by_class[key] = by_class.get(key, 0) + count
        if error:
            by_reason[error] = by_reason.get(error, 0) + count
            if error in GONE:
                gone += count
            else:
                errors += count
        for bucket, n in enumerate(counts):
            durations[bucket] += n
    finished = sum(durations)
    return {
        "started": finished + active,
        "active": active,
        "finished": finished,
        "errors": errors,
        "error_rate": errors / finished if finished else None,
        "gone": gone,
        "by_class": by_class,
        "by_error": by_reason,
        "duration_seconds": {name: quantile(durations, bounds, share) for name, share in QUANTILES.items()},
        "duration_counts": durations,
        "duration_sum_seconds": round(seconds, 6),
        "budgets": _budgets(numbers),
        "cancellations": {} if numbers is None else _counted(numbers.cancellations),
        "deadline_exceeded": 0 if numbers is None else sum(numbers.exceeded.values()),
        "deadline_rejected": 0 if numbers is None else sum(numbers.rejected.values()),
        "retries": 0 if numbers is None else sum(numbers.retries.values()),
    }


def _budgets(numbers: RouteNumbers | None) -> Data:
    """The budgets that exchanges began with, by where the smallest bound came from."""
    by_source: dict[str, Data] = {}
    for source in BUDGET_SOURCES:
        counts, total = ((), 0.0) if numbers is None else numbers.budgets[source].state[:2]
        by_source[source] = {"count": sum(counts), "sum_seconds": round(total, 6)}
    invalid = 0 if numbers is None else numbers.notices.get(Notice.INVALID_TIMEOUT_HEADER, 0)
    return {"by_source": by_source, "invalid_headers": invalid}


def quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """Seconds below which `share` of the durations are, straight lines within a bucket; None without any.

    In the last bucket, which is open, the answer is its lower bound.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, below = share * total, 0
    for bucket, count in enumerate(counts[:-1]):
        if count and below + count >= wanted:
            low = bounds[bucket - 1] if bucket else 0.0
            return low + (bounds[bucket] - low) * (wanted - below) / count
        below += count
    return bounds[-1]


def endpoints_change(change: EndpointsChange, clusters: Iterable[Cluster]) -> Data:
    """Endpoints that have come or gone; the first of them by name."""
    return {
        "entry": change.entry,
        "upstreams": [one.name for one in clusters if change.entry in map(str, one.policy.endpoints)],
        "added": list(change.added[:MOST_TOLD]),
        "added_count": len(change.added),
        "removed": list(change.removed[:MOST_TOLD]),
        "removed_count": len(change.removed),
        "count": change.count,
    }


def upstream(
    cluster: Cluster,
    moment: Moment,
    listing: Callable[[Endpoint], Listing | None],
    standbys: Mapping[str, Standby] | None = None,
) -> Data:
    """One upstream: its limits, how far they are used, who lists its endpoints, each endpoint, and by route who takes
    over from it."""
    listings = [found for entry in cluster.policy.endpoints if (found := listing(entry)) is not None]
    limits = cluster.policy.limits
    return {
        "name": cluster.name,
        "in_flight": cluster.in_flight,
        "pending": cluster.pending,
        "connections": cluster.connections,
        "refused_by_limits": cluster.overflows,
        "limits": {
            "max_connections": limits.max_connections,
            "max_pending": limits.max_pending,
            "max_requests": limits.max_requests,
        },
        "adaptive": _adaptive(cluster, moment),
        "failover": _failover(cluster, standbys or {}, moment),
        "configured": [str(endpoint) for endpoint in cluster.policy.endpoints],
        "lists": [_listing(one, moment) for one in listings],
        "endpoints": [
            {
                "address": str(pool.endpoint),
                "weight": pool.endpoint.weight,
                "priority": pool.endpoint.priority,
                "zones": list(pool.endpoint.zones),
                "in_flight": pool.in_flight,
                "connections": pool.open_count,
                "idle": pool.idle_count,
                "own_pod": pool.is_own_pod,
                **_standing(pool.standing, moment),
                "check": _check(pool.standing, cluster, moment),
            }
            for pool in cluster.pools
        ],
    }


def _adaptive(cluster: Cluster, moment: Moment) -> Data | None:
    """The limit that is found by the time of answers; None with `limits.adaptive: off`."""
    adaptive = cluster.adaptive
    if adaptive is None:
        return None
    return {
        "mode": "observe" if adaptive.is_observing else "on",
        "limit": adaptive.limit,
        "in_flight": cluster.adaptive_in_flight,
        "floor": adaptive.floor,
        "base_seconds": adaptive.base_seconds,
        "refused": adaptive.refused,
        "would_refuse": adaptive.would_refuse,
        "changed": {"at": moment.instant(adaptive.changed.at), "reason": adaptive.changed.reason.value},
    }


def _failover(cluster: Cluster, standbys: Mapping[str, Standby], moment: Moment) -> Data | None:
    """Who takes over, when, and how much of its load the upstream keeps at present; None where nobody does."""
    policy = cluster.policy.failover
    if policy is None:
        return None
    return {
        "to": list(policy.to),
        "below": policy.below,
        "back": {"share": policy.back.share, "seconds": policy.back.seconds},
        "routes": [
            {
                "route": route,
                "phase": one.failover.phase.value,
                "since": moment.instant(one.failover.since),
                "kept_share": round(one.failover.kept, 3),
                "moved": dict(one.moved),
                "trials": one.trials,
            }
            for route, one in standbys.items()
        ],
    }


def failover_change(change: FailoverChange, moment: Moment) -> Data:
    """A failover has begun or ended."""
    return {
        "route": change.route,
        "upstream": change.upstream,
        "to": list(change.to),
        "phase": change.phase.value,
        "usable": change.supply.usable,
        "endpoints": change.supply.total,
        "at": moment.instant(change.at),
        "told": change.told,
    }


def _check(standing: Standing, cluster: Cluster, moment: Moment) -> Data | None:
    """What the sidecar's own checks have shown of an endpoint; None where there are none."""
    policy = cluster.policy.health_check
    if policy is None:
        return None
    record = standing.check or CheckRecord()
    return {
        "asks": policy.check.told,
        "state": record.state.value,
        "passed_in_row": record.good,
        "failed_in_row": record.bad,
        "why": record.why,
        "last_at": moment.instant(record.at),
    }


def endpoint_change(change: EndpointChange, moment: Moment) -> Data:
    """An endpoint is left out, or used again."""
    return {
        "upstream": change.upstream,
        "endpoint": change.endpoint,
        "state": change.health.value,
        "reason": None if change.reason is None else change.reason.value,
        "why": change.why,
        "at": moment.instant(change.at),
        "seconds": round(change.seconds, 3),
        "told": change.told,
    }


def _listing(listing: Listing, moment: Moment) -> Data:
    """Who lists endpoints of one entry, and how well that goes."""
    return {
        "entry": str(listing.entry),
        "by": listing.by,
        "count": listing.count,
        "error": listing.error,
        "failures": listing.failures,
        "changed_at": moment.instant(listing.changed_at),
        "next_at": moment.instant(listing.next_at),
    }


def _standing(standing: Standing, moment: Moment) -> Data:
    """What is thought of an endpoint, and why."""
    is_ejected = standing.health is Health.EJECTED
    until = standing.until if is_ejected else None
    return {
        "state": standing.health.value,
        "why": standing.why,
        "failures_in_row": standing.longest,
        "ejections": standing.times,
        "ejected_until": moment.instant(until),
        "ejected_seconds_left": _left(until, moment),
    }


def _counted(counts: Mapping[str, int]) -> dict[str, int]:
    """Without what has not come yet."""
    return {name: count for name, count in counts.items() if count}
