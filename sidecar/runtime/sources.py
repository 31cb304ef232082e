"""Live state → the plain values that telemetry and `/metrics` collect. Reads only; safe from any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.sources import BreakerNumbers, Sources, UpstreamNumbers, server_of

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
        connections_refused={
            name: listener.refused_connections for name, listener in list(worker.listeners.items())
        },
        dropped=worker.telemetry_dropped(),
    )


def _breaker(breaker: Breaker) -> BreakerNumbers:
    tally = breaker.tally  # `numbers` would move the window, which is the loop's
    return BreakerNumbers(
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
