"""What is known of an entry of an upstream's `endpoints` that somebody else lists: for admin pages, log and events.

Records cross rooms, so nothing in them changes after birth.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Endpoint

MOST_ENDPOINTS: Final = 10_000
"""Of one entry: more are a mistake, and change nothing."""
MOST_TOLD: Final = 32
"""Endpoints that an event names; the numbers are of all."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One entry as it is now. Instants are seconds on the loop's clock."""

    entry: Endpoint
    by: str
    """Who lists its endpoints: `dns`, `srv`, `file` or `kubernetes`; `dns` also while the latter cannot."""
    count: int
    """Of its endpoints."""
    error: str | None
    """Why they may be old, with the remedy; None while all is well."""
    failures: int
    """Since it is watched."""
    changed_at: float | None
    """When its endpoints changed last; None before there were any."""
    next_at: float | None = None
    """When they are looked for again; None where changes are told by themselves."""


@dataclass(frozen=True, slots=True)
class EndpointsChange:
    """Endpoints of one entry have come or gone."""

    entry: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    count: int
    """Of its endpoints from now on."""

    @property
    def told(self) -> str:
        """For people."""
        return f"{self.entry}: {len(self.added)} endpoints came, {len(self.removed)} went, {self.count} are there"


def change_of(entry: Endpoint, before: tuple[Endpoint, ...], after: tuple[Endpoint, ...]) -> EndpointsChange:
    """What has come and gone between two lists."""
    old, new = set(before), set(after)
    return EndpointsChange(
        str(entry),
        tuple(str(one) for one in after if one not in old),
        tuple(str(one) for one in before if one not in new),
        len(new),
    )


def are_alike(before: tuple[Endpoint, ...], after: tuple[Endpoint, ...]) -> bool:
    """The same endpoints, with the same weights and zones."""
    return before == after and [one.facts for one in before] == [one.facts for one in after]
