"""Which state an operator's override, or the policy's mode, fixes."""

from __future__ import annotations

from typing import Final

from sidecar.core.override import Order, Override
from sidecar.core.snapshot import BreakerMode, BreakerPolicy
from sidecar.core.transition import State

FORCED: Final = {Override.OPEN: State.FORCED_OPEN, Override.CLOSE: State.FORCED_CLOSED}


def resting_state(order: Order | None, policy: BreakerPolicy) -> State:
    """The state that an override or a mode fixes, or CLOSED, where the machine begins."""
    if order is not None:
        return FORCED[order.action]
    if policy.mode is BreakerMode.FORCED_OPEN:
        return State.FORCED_OPEN
    return State.DISABLED if policy.mode is BreakerMode.DISABLED else State.CLOSED
