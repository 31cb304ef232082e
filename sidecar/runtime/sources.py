"""Live state → the plain values that telemetry and `/metrics` collect. Reads only; safe from any thread."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping

from sidecar.core.breaker import Breaker
from sidecar.core.contract import BUILD
from sidecar.core.ejection.change import Health
from sidecar.core.ejection.peers import Peers
from sidecar.core.health import CheckState
from sidecar.core.installed import version
from sidecar.core.memory_budget import MemoryBudget
from sidecar.core.snapshot import BreakerMode, Telemetry
from sidecar.core.sources import (
    AdaptiveNumbers,
    BreakerReading,
    ConfigNumbers,
    FailoverReading,
    FleetNumbers,
    LoopNumbers,
    MemoryNumbers,
    OverloadNumbers,
    Sources,
    UpstreamNumbers,
    server_of,
)
from sidecar.runtime.certificates import Rotation
from sidecar.runtime.datapath import DataPath
from sidecar.runtime.own_numbers import process_numbers
from sidecar.runtime.telemetry_rooms import Lost
from sidecar.serving.http import HttpServer
from sidecar.upstream.cluster import Cluster


def collect(
    datapath: DataPath,
    config: ConfigNumbers,
    servers: Mapping[str, HttpServer],
    dropped: Lost,
    rotation: Rotation,
    resource: Mapping[str, str],
    fleet: FleetNumbers | None,
    telemetry: Telemetry,
) -> Sources:
    """Everything at one moment, as far as a reader beside the loop can see one.

    `servers` are those beside the data path, by the name under which their refusals are counted; added up where the
    configuration has a listener of that name too.
    """
    assembly, now = datapath.assembly, datapath.service.clock()
    wall = time.time() - now
    pace = datapath.service.sweep.pace
    sockets = list(datapath.listeners.sockets.items())
    refused = Counter({name: one.refused_connections for name, one in sockets})
    refused.update({name: server.refused for name, server in servers.items()})
    return Sources(
        breakers=[_breaker(breaker, now, wall) for breaker in list(assembly.breakers.values())],
        upstreams=[_upstream(cluster) for cluster in list(assembly.clusters.values())],
        failovers=[
            FailoverReading(home.breaker.route, home.breaker.upstream, one.failover.kept, dict(one.moved))
            for home, one in assembly.standbys()
        ],
        config=config,
        memory=memory_numbers(datapath.service.memory),
        loop=LoopNumbers(pace.lag.state[:2], pace.throttled_turns, datapath.service.turns.ends_put_off),
        overloads=[
            OverloadNumbers(
                name,
                one.overload.is_on,
                one.refused_requests,
                one.gone_clients,
                one.queues.waits_for_room,
                one.turned_away,
            )
            for name, one in sockets
        ],
        secured_listeners=frozenset(name for name, one in sockets if one.served is not None),
        certificates=rotation.numbers(),
        certificate_changes=dict(rotation.changes),
        handshakes={
            (name, result.value): count
            for name, one in sockets
            for result, count in list(one.handshakes.items())
        },
        admission={
            (name, outcome): count
            for name, live in list(assembly.routes.items())
            if (admission := live.admission) is not None
            for outcome, count in (("refused", admission.refused), ("spared", admission.would_refuse))
        },
        copies={
            name: copying.in_flight
            for name, live in list(assembly.routes.items())
            if live.destinations and (copying := live.destinations[0].copying) is not None
        },
        passed=assembly.passing.numbers(),
        callers_evicted=datapath.service.callers.evicted,
        callers_tied=datapath.service.callers.ties.tied,
        callers_untied=datapath.service.callers.ties.untied,
        callers_across={} if datapath.notices is None else datapath.notices.numbers(),
        connections_refused=refused,
        dropped=dropped,
        fleet=fleet,
        process=process_numbers(),
        build=(("version", version()), ("build", BUILD), ("python", platform.python_version())),
        resource=tuple(resource.items()),
        metrics_prefix=telemetry.metrics_prefix,
        native_histograms=telemetry.native_histograms,
    )


def memory_numbers(budget: MemoryBudget) -> MemoryNumbers:
    closed = {held.value: count for held, count in budget.closed.items()}
    return MemoryNumbers(budget.used_bytes, budget.limit_bytes, closed, budget.refused)


def _breaker(breaker: Breaker, now: float, wall: float) -> BreakerReading:
    """`wall` makes a monotonic time one of the day."""
    tally, opened_at = (
        breaker.tally,
        breaker.machine.opened_at,
    )  # `numbers` would move the window, which is the loop's
    candidate = breaker.candidate  # a reload may take it away meanwhile
    return BreakerReading(
        route=breaker.route,
        upstream=breaker.upstream,
        state=breaker.state_at(now),
        successful=tally.successful,
        failed=tally.failed,
        ignored=tally.ignored,
        rejected=tally.rejected,
        is_probe_due=breaker.is_probe_due(now),
        is_overridden=breaker.order_at(now) is not None,
        opened_at=0.0 if opened_at is None else round(opened_at + wall, 3),
        timed_out=tally.timed_out,
        slow=tally.slow,
        candidate=None if candidate is None else candidate.state,
        would_have_rejected=dict(_judged_after_all(breaker, candidate)),
    )


def _judged_after_all(breaker: Breaker, candidate: Breaker | None) -> Iterator[tuple[tuple[str, str], int]]:
    """What became of requests that a policy would have refused, of each that only counts."""
    counting = {"candidate": candidate}
    if breaker.policy.mode is BreakerMode.METRICS_ONLY:
        counting["active"] = breaker
    for name, one in counting.items():
        if one is not None:
            yield (name, "success"), one.tally.would_have_been_fine
            yield (name, "failure"), one.tally.failures_saved


def _endpoints(peers: Peers) -> dict[Health, int]:
    count, usable, ejected, unhealthy = len(peers.members), peers.usable, peers.ejected, peers.unhealthy
    return {
        Health.USABLE: usable,
        Health.EJECTED: ejected,
        Health.SPARED: max(count - usable - ejected - unhealthy, 0),
        Health.UNHEALTHY: unhealthy,
    }


def _checked(peers: Peers) -> dict[CheckState, int]:
    records = [standing.check for standing in list(peers.members.values())]
    states = Counter(CheckState.UNKNOWN if one is None else one.state for one in records)
    return {state: states[state] for state in CheckState}


def _upstream(cluster: Cluster) -> UpstreamNumbers:
    idle = sum(pool.idle_count for pool in list(cluster.pools))
    is_checked = cluster.policy.health_check is not None
    return UpstreamNumbers(
        name=cluster.name,
        active=max(cluster.connections - idle, 0),
        idle=idle,
        pending=cluster.pending,
        in_process=cluster.departure.in_process,
        waits=cluster.waited.state[:2],
        endpoints=_endpoints(cluster.peers),
        ejections=dict(cluster.peers.counted),
        checked=_checked(cluster.peers) if is_checked else {},
        checks=dict(cluster.peers.checks) if is_checked else {},
        checks_delayed=cluster.peers.checks_delayed,
        server=server_of(cluster.policy),
        scheme="http" if cluster.policy.tls is None else "https",
        adaptive=_adaptive(cluster),
    )


def _adaptive(cluster: Cluster) -> AdaptiveNumbers | None:
    one = cluster.adaptive
    if one is None:
        return None
    return AdaptiveNumbers(
        one.limit,
        one.base_seconds or 0.0,
        cluster.adaptive_in_flight,
        one.refused,
        one.would_refuse,
        {reason.value: count for reason, count in one.changes.items()},
    )
