"""Who gets which share: endpoints by priority and zone, in groups that take over from one another by degrees.

The first group has all requests as long as enough of it is usable: its share is usable ÷ all × 1.4, at most 1, and
what it cannot take goes to the next (Envoy's "overprovisioning factor"; `failover` between upstreams has the same).
Groups are made of priorities (SRV records, a file), and within one of our own zone and the others, where a zone is
known of every usable endpoint and ours has some. An endpoint of weight 0 is used where its priority has no other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Final, Protocol, TypeVar

from sidecar.core.snapshot import Endpoint

OVERPROVISIONED: Final = 1.4
"""A group with 72 % of its endpoints usable takes all of its requests."""


class Placed(Protocol):
    @property
    def endpoint(self) -> Endpoint: ...


P = TypeVar("P", bound=Placed)


def divide(places: Sequence[P], usable: Collection[P], zone: str | None) -> list[tuple[list[P], float]]:
    """The groups in their order, with their shares, whose sum is 1; none without a usable endpoint.

    `zone`: ours; None: it does not matter.
    """
    found: list[tuple[list[P], float]] = []
    rest = 1.0
    for group, count in _groups(places, usable, zone):
        share = min(rest, OVERPROVISIONED * len(group) / count)
        rest -= share
        found.append((group, share))
    taken = 1.0 - rest
    return [(group, share / taken) for group, share in found]


def _groups(places: Sequence[P], usable: Collection[P], zone: str | None) -> Iterator[tuple[list[P], int]]:
    """Usable endpoints, and how many the group has in all."""
    by_priority: dict[int, list[P]] = defaultdict(list)
    for one in places:
        by_priority[one.endpoint.priority].append(one)
    is_usable = usable if isinstance(usable, set | frozenset) else set(usable)
    for _, tier in sorted(by_priority.items()):
        whole = [one for one in tier if one.endpoint.weight > 0]
        group = [one for one in whole if one in is_usable]
        if not group:
            # Of all there are: those that are left do not get more than the last ones with a weight.
            whole = tier
            group = [one for one in tier if one in is_usable]
        if not group:
            continue
        near = _near(group, zone)
        if not near:
            yield group, len(whole)
            continue
        count = sum(zone in one.endpoint.zones for one in whole)
        yield near, count
        far = [one for one in group if zone not in one.endpoint.zones]
        if far:
            yield far, len(whole) - count


def _near(group: Sequence[P], zone: str | None) -> list[P]:
    """Those of our zone; none where it does not matter, or is not known of every one."""
    if zone is None or not all(one.endpoint.zones for one in group):
        return []
    return [one for one in group if zone in one.endpoint.zones]
