"""An upstream whose endpoints are wherever its clients were going (`endpoints: [original]`).

An endpoint comes when somebody was on the way to it, and the one that was asked for longest ago leaves for the next.
Nobody is sent to another one than he asked for, so there is nothing to choose.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from typing import Final

from sidecar.core.snapshot import ORIGINAL, Endpoint
from sidecar.upstream.cluster import AnyPool, Cluster

MOST_ENDPOINTS: Final = 1024


class OriginalCluster(Cluster):
    """See the module."""

    most = MOST_ENDPOINTS

    def pick(self, avoid: Collection[AnyPool] = (), key: int | None = None) -> AnyPool | None:
        return None

    def pick_for_probe(self, failed: Iterable[Hashable], key: int | None = None) -> AnyPool | None:
        return None

    def meant(self, host: str, port: int) -> AnyPool | None:
        endpoint = Endpoint(host, port)
        if not endpoint.is_literal:
            return None
        if not self.at(endpoint):
            kept = self._kept(self.most - 1)
            self.set_addresses(ORIGINAL, [*kept, endpoint])
        (known,) = self.at(endpoint)
        return known

    def _kept(self, most: int) -> list[Endpoint]:
        """Those that stay when one more comes."""
        left = len(self.pools) - most
        by_age = sorted(self.pools, key=lambda pool: (pool.in_flight > 0, pool.begun_at))
        leaving = {id(pool) for pool in by_age[: max(left, 0)]}
        return [pool.endpoint for pool in self.pools if id(pool) not in leaving]

    def _use(self, pools: list[AnyPool], now: float) -> None:
        super()._use(pools, now)
        self.single = None
