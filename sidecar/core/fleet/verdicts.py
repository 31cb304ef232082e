"""When many replicas together know enough: whether to open those that have no evidence of their own.

One replica alone that fails says as much of itself as of the upstream. So a row and a rate need failures of two
replicas, unless no other one has had a success within the window; and a row has to be longer than what the failures
of the window put into it by chance in the time that a message takes."""

from __future__ import annotations

from enum import Enum
from math import ceil
from typing import Final

from sidecar.core.breaker.triggers import Triggers
from sidecar.core.fleet.merging import Merged
from sidecar.core.snapshot import BreakerPolicy

QUORUM_SHARE: Final = 1.0 / 3.0
QUORUM_LEAST: Final = 2
TIMES_CHANCE: Final = 3.0
"""A row has to be this many times longer, beyond `consecutive_failures`, than what chance puts into it."""


class Why(Enum):
    """Why all are opened."""

    QUORUM = "quorum"
    ROW = "row"
    RATE = "rate"


def verdict(merged: Merged, policy: BreakerPolicy, triggers: Triggers, share_of_delay: float) -> Why | None:
    """Why to open now, or None. `share_of_delay`: how much of what the window holds came in the time that hearing of
    each other takes, 0 to 1."""
    voters = merged.callers | merged.refusing
    if len(merged.refusing) >= max(QUORUM_LEAST, ceil(len(voters) * QUORUM_SHARE)):
        return Why.QUORUM
    if is_row_long(merged, policy, share_of_delay) and _is_wide(merged.in_row, merged):
        return Why.ROW
    if triggers.check_rates(merged.counts) is not None and _is_wide(merged.failing, merged):
        return Why.RATE
    return None


def is_row_long(merged: Merged, policy: BreakerPolicy, share_of_delay: float) -> bool:
    """Whether the failures in the row say something."""
    if not policy.consecutive_failures:
        return False
    by_chance = merged.counts.failed * share_of_delay
    return merged.row >= policy.consecutive_failures + int(TIMES_CHANCE * by_chance)


def has_evidence_against(merged: Merged, policy: BreakerPolicy, triggers: Triggers) -> bool:
    """Whether a pod's own window says that the upstream is well, whatever others see of it."""
    counts = merged.counts
    return counts.total >= policy.minimum_calls and triggers.check_rates(counts) is None


def _is_wide(replicas: set[str], merged: Merged) -> bool:
    return len(replicas) >= 2 or merged.succeeding <= replicas
