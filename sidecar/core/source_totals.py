"""What is pulled from several processes, as if from one. Pure; the numbers that are told are in `totals.py`.

States of a breaker that differ: the worst is shown, since it is what some requests meet. What is configured, and who
is scraped, is the first's: that of the process which knows it for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import add
from typing import TypeVar

from sidecar.core.ejection.change import Health
from sidecar.core.sources import (
    AdaptiveNumbers,
    BreakerReading,
    FailoverReading,
    FleetNumbers,
    LoopNumbers,
    MemoryNumbers,
    OverloadNumbers,
    PassedNumbers,
    ProcessNumbers,
    Sources,
    UpstreamNumbers,
)
from sidecar.core.transition import State

K = TypeVar("K")
T = TypeVar("T")
HistogramState = tuple[Sequence[int], float]

WORST_FIRST = (
    State.FORCED_OPEN,
    State.OPEN,
    State.HALF_OPEN,
    State.CLOSED,
    State.DISABLED,
    State.FORCED_CLOSED,
)


def worst(states: Iterable[State]) -> State:
    """The one that lets least through."""
    return min(states, key=WORST_FIRST.index)


def summed(first: Sources, others: Sequence[Sources], *, is_closed: bool = True) -> Sources:
    """All together. `is_closed`: there are no breakers, upstreams and failovers but those that `first` has."""
    every = (first, *others)
    return replace(
        first,
        breakers=_merged([one.breakers for one in every], _by_route, _breaker, is_closed=is_closed),
        upstreams=_merged([one.upstreams for one in every], _by_name, _upstream, is_closed=is_closed),
        failovers=_merged([one.failovers for one in every], _by_route, _failover, is_closed=is_closed),
        memory=_memory([one.memory for one in every]),
        fleet=_fleet([one.fleet for one in every if one.fleet is not None]),
        loop=LoopNumbers(
            _histogram([one.loop.lag for one in every]),
            sum(one.loop.throttled_turns for one in every),
            sum(one.loop.ends_put_off for one in every),
        ),
        overloads=_overloads(every),
        certificate_changes=_counts(one.certificate_changes for one in every),
        handshakes=_counts(one.handshakes for one in every),
        admission=_counts(one.admission for one in every),
        copies=_counts(one.copies for one in every),
        passed=_passed([one.passed for one in every]),
        callers_evicted=sum(one.callers_evicted for one in every),
        callers_tied=sum(one.callers_tied for one in every),
        callers_untied=sum(one.callers_untied for one in every),
        callers_across=_counts(one.callers_across for one in every),
        balanced=_counts(one.balanced for one in every),
        connections_refused=_counts(one.connections_refused for one in every),
        dropped=_counts(one.dropped for one in every),
        process=_process([one.process for one in every if one.process is not None]),
    )


def remains(sources: Sources) -> Sources:
    """What is left of a process that has ended: what it had counted, and nothing of what it had under way."""
    process = sources.process
    return Sources(
        breakers=[
            replace(one, state=State.CLOSED, is_probe_due=False, is_overridden=False, candidate=None)
            for one in sources.breakers
        ],
        upstreams=[
            replace(
                one, active=0, idle=0, pending=0, endpoints={}, checked={}, adaptive=_adaptive_remains(one)
            )
            for one in sources.upstreams
        ],
        failovers=[replace(one, kept=1.0) for one in sources.failovers],
        memory=replace(sources.memory, used_bytes=0, limit_bytes=0),
        loop=sources.loop,
        overloads=[replace(one, is_on=False) for one in sources.overloads],
        certificate_changes=sources.certificate_changes,
        handshakes=sources.handshakes,
        admission=sources.admission,
        passed=replace(sources.passed, destinations=0),
        callers_evicted=sources.callers_evicted,
        callers_tied=sources.callers_tied,
        callers_untied=sources.callers_untied,
        callers_across=sources.callers_across,
        connections_refused=sources.connections_refused,
        dropped=sources.dropped,
        process=None
        if process is None
        else replace(process, resident_bytes=0, virtual_bytes=0, open_files=0),
    )


def _by_route(one: BreakerReading | FailoverReading) -> tuple[str, str]:
    return one.route, one.upstream


def _by_name(one: UpstreamNumbers) -> str:
    return one.name


def _merged(
    parts: Sequence[Sequence[T]],
    key: Callable[[T], object],
    merge: Callable[[Sequence[T]], T],
    *,
    is_closed: bool,
) -> list[T]:
    """The rows of one key together; `is_closed`: only keys of the first part."""
    found: dict[object, list[T]] = {key(row): [row] for row in parts[0]}
    for part in parts[1:]:
        for row in part:
            if key(row) in found:
                found[key(row)].append(row)
            elif not is_closed:
                found[key(row)] = [row]
    return [merge(rows) for rows in found.values()]


def _breaker(rows: Sequence[BreakerReading]) -> BreakerReading:
    """The first serves no traffic, where there are others: its state is nobody's."""
    lived = rows[1:] or rows
    return replace(
        rows[0],
        state=worst(one.state for one in lived),
        successful=sum(one.successful for one in rows),
        failed=sum(one.failed for one in rows),
        ignored=sum(one.ignored for one in rows),
        rejected=sum(one.rejected for one in rows),
        is_probe_due=any(one.is_probe_due for one in lived),
        is_overridden=any(one.is_overridden for one in lived),
        opened_at=max(one.opened_at for one in rows),
        timed_out=sum(one.timed_out for one in rows),
        slow=sum(one.slow for one in rows),
        candidate=_worst_candidate(lived),
        would_have_rejected=_counts(one.would_have_rejected for one in rows),
    )


def _worst_candidate(rows: Sequence[BreakerReading]) -> State | None:
    states = [one.candidate for one in rows if one.candidate is not None]
    return worst(states) if states else None


def _upstream(rows: Sequence[UpstreamNumbers]) -> UpstreamNumbers:
    """Endpoints are the same everywhere, and each process has its own opinion of them: the gloomiest is shown. Who
    is the first makes the health checks for all."""
    lived = rows[1:] or rows
    with_endpoints = [one for one in lived if one.endpoints] or rows
    gloomiest = min(with_endpoints, key=lambda one: one.endpoints.get(Health.USABLE, 0))
    return replace(
        rows[0],
        active=sum(one.active for one in rows),
        idle=sum(one.idle for one in rows),
        pending=sum(one.pending for one in rows),
        in_process=sum(one.in_process for one in rows),
        endpoints=gloomiest.endpoints,
        ejections=_counts(one.ejections for one in rows),
        waits=_histogram([one.waits for one in rows]),
        adaptive=_adaptive([one.adaptive for one in lived if one.adaptive is not None]),
    )


def _adaptive(parts: Sequence[AdaptiveNumbers]) -> AdaptiveNumbers | None:
    """Each process has its own limit, for its own part of what is in flight."""
    if not parts:
        return None
    return AdaptiveNumbers(
        limit=sum(one.limit for one in parts),
        base_seconds=max(one.base_seconds for one in parts),
        in_flight=sum(one.in_flight for one in parts),
        refused=sum(one.refused for one in parts),
        spared=sum(one.spared for one in parts),
        changes=_counts(one.changes for one in parts),
    )


def _adaptive_remains(one: UpstreamNumbers) -> AdaptiveNumbers | None:
    return None if one.adaptive is None else replace(one.adaptive, limit=0, base_seconds=0.0, in_flight=0)


def _failover(rows: Sequence[FailoverReading]) -> FailoverReading:
    kept = [one.kept for one in rows[1:] or rows]
    return replace(rows[0], kept=sum(kept) / len(kept), moved=_counts(one.moved for one in rows))


def _fleet(parts: Sequence[FleetNumbers]) -> FleetNumbers | None:
    """Alone where one of them is; each has a link of its own."""
    if not parts:
        return None
    failures: Counter[str] = Counter()
    dissents: dict[tuple[str, str], bool] = {}
    for one in parts:
        failures.update(one.failures)
        for place, is_dissenting in one.dissents.items():
            dissents[place] = dissents.get(place, False) or is_dissenting
    return FleetNumbers(
        is_linked=all(one.is_linked for one in parts),
        replicas=max(one.replicas for one in parts),
        written=sum(one.written for one in parts),
        read=sum(one.read for one in parts),
        failures=dict(failures),
        dropped=sum(one.dropped for one in parts),
        dissents=dissents,
    )


def _memory(parts: Sequence[MemoryNumbers]) -> MemoryNumbers:
    return MemoryNumbers(
        sum(one.used_bytes for one in parts),
        sum(one.limit_bytes for one in parts),
        _counts(one.closed for one in parts),
        sum(one.refused for one in parts),
    )


def _overloads(every: Iterable[Sources]) -> list[OverloadNumbers]:
    by: dict[str, OverloadNumbers] = {}
    for one in (overload for part in every for overload in part.overloads):
        before = by.get(one.listener, OverloadNumbers(one.listener))
        by[one.listener] = OverloadNumbers(
            one.listener,
            before.is_on or one.is_on,
            before.refused + one.refused,
            before.left + one.left,
            before.waits_for_room + one.waits_for_room,
            before.turned_away + one.turned_away,
        )
    return list(by.values())


def _passed(parts: Sequence[PassedNumbers]) -> PassedNumbers:
    return PassedNumbers(
        sum(one.destinations for one in parts),
        sum(one.passed for one in parts),
        sum(one.closed for one in parts),
        sum(one.evicted for one in parts),
    )


def _process(parts: Sequence[ProcessNumbers]) -> ProcessNumbers | None:
    if not parts:
        return None
    return ProcessNumbers(
        cpu_seconds=sum(one.cpu_seconds for one in parts),
        resident_bytes=sum(one.resident_bytes for one in parts),
        virtual_bytes=sum(one.virtual_bytes for one in parts),
        open_files=sum(one.open_files for one in parts),
        max_open_files=max(one.max_open_files for one in parts),
        started_at=min(one.started_at for one in parts),
    )


def _counts(parts: Iterable[Mapping[K, int]]) -> dict[K, int]:
    total: Counter[K] = Counter()
    for one in parts:
        for key, count in one.items():
            total[key] += count
    return dict(total)


def _histogram(parts: Iterable[HistogramState]) -> HistogramState:
    counts: tuple[int, ...] = ()
    total = 0.0
    for own, seconds in parts:
        counts = tuple(map(add, counts, own)) if counts else tuple(own)
        total += seconds
    return counts, total
