"""Live state → the plain values that telemetry and `/metrics` collect. Reads only; safe from any thread."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sidecar.core.sources import BreakerReading, Sources, UpstreamNumbers, server_of

if TYPE_CHECKING:
    from sidecar.core.breaker import Breaker
    from sidecar.runtime.worker import Worker
    from sidecar.upstream.cluster import Cluster


def collect(worker: Worker) -> Sources:
    """Everything at one moment, as far as a reader beside the loop can see one."""
    now = worker.service.clock()
    return Sources(
        breakers=[_breaker(breaker) for breaker in list(worker.assembly.breakers.values())],
        upstreams=[_upstream(cluster) for cluster in list(worker.assembly.clusters.values())],
        config=worker.active.numbers(now),
        callers_evicted=worker.service.callers.evicted,
        connections_refused=_refused(worker),
        dropped=worker.telemetry_dropped(),
    )


def _refused(worker: Worker) -> Counter[str]:
    """By listener, with `admin` and `probes` among them; added up where the configuration has such a name too."""
    refused = Counter({name: one.refused_connections for name, one in list(worker.listeners.items())})
    for name, server in (("admin", worker.admin.server), ("probes", worker.probes.server)):
        refused[name] += server.refused
    return refused


def _breaker(breaker: Breaker) -> BreakerReading:
    tally = breaker.tally  # `numbers` would move the window, which is the loop's
    return BreakerReading(
        route=breaker.route,
        upstream=breaker.upstream,
        state=breaker.state,
        successful=tally.successful,
        failed=tally.failed,
        ignored=tally.ignored,
        rejected=tally.rejected,
    )


def _upstream(cluster: Cluster) -> UpstreamNumbers:
    idle = sum(pool.idle_count for pool in list(cluster.pools))
    return UpstreamNumbers(
        name=cluster.name,
        active=max(cluster.connections - idle, 0),
        idle=idle,
        pending=cluster.pending,
        server=server_of(cluster.policy),
    )
