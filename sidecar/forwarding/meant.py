"""The attempts of an exchange whose client was on its way to somewhere: if that is one of the upstream's endpoints,
it alone is asked (SPEC-PROTOCOLS 14). `db-0.db` means that pod, and no other one of its set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.forwarding.race import Race

if TYPE_CHECKING:
    from sidecar.forwarding.permit import Permit
    from sidecar.upstream.cluster import AnyPool, Cluster


class MeantRace(Race):
    """Every attempt of it, further tries too."""

    __slots__ = ()

    def _run(self, permit: Permit, cluster: Cluster, pool: AnyPool | None, now: float) -> None:
        super()._run(permit, cluster, self._pool(cluster, pool), now)

    def _pool(self, cluster: Cluster, pool: AnyPool | None) -> AnyPool | None:
        asked = self.exchange.request.asked
        return pool if asked is None else cluster.meant(asked.host, asked.port) or pool
