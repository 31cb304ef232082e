"""Live state → the plain values that telemetry and `/metrics` collect. Reads only; safe from any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.sources import BreakerNumbers, ConfigNumbers, Sources, UpstreamNumbers, server_of

if TYPE_CHECKING:
    from sidecar.core.breaker import Breaker
    from sidecar.runtime.worker import Worker
    from sidecar.upstream.cluster import Cluster


def collect(worker: Worker) -> Sources:
    """Everything at one moment, as far as a reader beside the loop can see one."""
    now = worker.service.clock()
    return Sources(
        breakers=[_breaker(breaker, now) for breaker in list(worker.assembly.breakers.values())],
        upstreams=[_upstream(cluster) for cluster in list(worker.assembly.clusters.values())],
        config=ConfigNumbers(generation=worker.generation, age_seconds=now - worker.since),
        callers_evicted=worker.service.callers.evicted,
        connections_refused={
            name: listener.refused_connections for name, listener in list(worker.listeners.items())
        },
        dropped=worker.telemetry.dropped(),
    )


def _breaker(breaker: Breaker, now: float) -> BreakerNumbers:
    numbers = breaker.numbers(now)
    return BreakerNumbers(
        route=numbers.route,
        upstream=numbers.upstream,
        state=numbers.state,
        successful=numbers.successful,
        failed=numbers.failed,
        ignored=numbers.ignored,
        rejected=numbers.rejected,
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
