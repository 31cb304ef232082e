"""What control's health checks show, for the upstreams of a worker. Owned by the worker's event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from sidecar.core.health import CheckEnd, CheckState, CheckVerdict
from sidecar.core.snapshot import Endpoint
from sidecar.forwarding.health import take
from sidecar.upstream.cluster import Cluster

Shown = tuple[str, Endpoint, CheckVerdict]
"""Of an endpoint of the upstream of this name."""
Clusters = Callable[[], Mapping[str, Cluster]]


class ToldChecks:
    """Takes them."""

    def __init__(self, clusters: Clusters, clock: Callable[[], float]) -> None:
        self._clusters = clusters
        self._clock = clock

    def told(self, shown: Iterable[Shown]) -> None:
        """Control has checked."""
        for upstream, endpoint, verdict in shown:
            cluster = self._clusters().get(upstream)
            policy = None if cluster is None else cluster.policy.health_check
            if cluster is not None and policy is not None:
                take(cluster, endpoint, verdict, policy, self._clock())

    def adopt(self) -> None:
        """Another snapshot is in use: upstreams without a check forget what checks have shown."""
        now = self._clock()
        for cluster in self._clusters().values():
            if cluster.policy.health_check is None:
                cluster.peers.check_no_more(now)
                cluster.settle(now)


def failing(clusters: Mapping[str, Cluster]) -> Iterator[Shown]:
    """What a worker that begins has missed: the failed checks of each endpoint that is unhealthy."""
    for cluster in clusters.values():
        policy = cluster.policy.health_check
        for pool in cluster.pools:
            record = pool.standing.check
            if policy is not None and record is not None and record.state is CheckState.UNHEALTHY:
                for _ in range(policy.unhealthy):
                    yield cluster.name, pool.endpoint, CheckVerdict(CheckEnd.FAILED, record.why)
