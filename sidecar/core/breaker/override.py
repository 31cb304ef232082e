"""What an operator has said of a breaker: the state, who said it, since when and until when."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from sidecar.core.snapshot import BreakerMode, BreakerPolicy
from sidecar.core.transition import State


class Override(Enum):
    """What an operator may ask for."""

    OPEN = "open"
    """FORCED_OPEN: refuse everything."""
    CLOSE = "close"
    """FORCED_CLOSED: admit everything."""
    AUTO = "auto"
    """Back to what the policy's mode says."""


FORCED: Final = {Override.OPEN: State.FORCED_OPEN, Override.CLOSE: State.FORCED_CLOSED}


@dataclass(frozen=True, slots=True)
class Order:
    """An override that is on. Times are monotonic seconds."""

    action: Override
    since: float
    until: float | None
    """None: until somebody says otherwise."""
    by: str
    """Who said it, such as `user@host`; empty where nobody told."""


def resting_state(order: Order | None, policy: BreakerPolicy) -> State:
    """The state that an override or a mode fixes, or CLOSED, where the machine begins."""
    if order is not None:
        return FORCED[order.action]
    if policy.mode is BreakerMode.FORCED_OPEN:
        return State.FORCED_OPEN
    return State.DISABLED if policy.mode is BreakerMode.DISABLED else State.CLOSED
