"""The attempts of an exchange whose client was on its way to somewhere: if that is one of the upstream's endpoints,
it alone is asked (SPEC-PROTOCOLS 14). `db-0.db` means that pod, and no other one of its set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.forwarding.race import Race

if TYPE_CHECKING:
    from sidecar.core.conditions import Entry
    from sidecar.core.request import Asked
    from sidecar.core.retry import RetryCause
    from sidecar.forwarding.attempt import Attempt
    from sidecar.forwarding.live import LiveRoute
    from sidecar.forwarding.permit import Permit
    from sidecar.upstream.cluster import AnyPool, Cluster


def is_meant(entry: Entry[LiveRoute], asked: Asked) -> bool:
    """Whether a route may take what was going there. A route of the app's own that names no port takes calls to the
    port at which its upstream stands: what listens at another port of the pod is somebody else, whatever `Host`
    says."""
    route = entry.target
    if not asked.is_original or route.is_egress or entry.port is not None or not route.destinations:
        return True
    endpoints = [one for destination in route.destinations for one in destination.cluster.policy.endpoints]
    return any(one.port in (0, asked.port) for one in endpoints)


class MeantRace(Race):
    """Every attempt of it, further tries too."""

    __slots__ = ()

    def _run(
        self,
        permit: Permit,
        cluster: Cluster,
        pool: AnyPool | None,
        now: float,
        cause: RetryCause | None = None,
    ) -> None:
        super()._run(permit, cluster, self._pool(cluster, pool), now, cause)

    def is_bound(self) -> bool:
        return self._meant(self.destination.cluster) is not None

    def _is_on_trial(self, permit: Permit, cluster: Cluster, now: float) -> bool:
        return not self.is_bound() and super()._is_on_trial(permit, cluster, now)

    def may_leave(self, attempt: Attempt) -> bool:
        return not self.is_bound() and super().may_leave(attempt)

    def others(self) -> int:
        return 0 if self.is_bound() else super().others()

    def _pool(self, cluster: Cluster, pool: AnyPool | None) -> AnyPool | None:
        return self._meant(cluster) or pool

    def _meant(self, cluster: Cluster) -> AnyPool | None:
        asked = self.exchange.request.asked
        return None if asked is None else cluster.meant(asked.host, asked.port)
