"""The messages between control and workers. Each has one sender, and one handler where it is registered.

To add one: a name here, and an entry in `ControlEnd.handlers` (worker) or `Hub.handlers` (control).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.override import Command


@dataclass(frozen=True, slots=True)
class Hello:
    """What control has to know of a worker that has come, or that was there before it."""

    digest: str
    """Of its configuration."""
    commands: Sequence[Command]
    """The operators' orders that it holds to."""
    is_serving: bool
    """It takes traffic: else it will say `SERVING`."""
    is_announced: bool
    """The end of the pod has been announced to it, and has not begun."""


# From a worker

HELLO: Final = "hello"
"""A `Hello`; the first of a channel."""
SERVING: Final = "serving"
"""It takes traffic from now on."""
REPORT: Final = "report"
"""Its numbers so far, pickled (`core/totals.py`): at least each few seconds, so that silence is a sign."""
EVENTS: Final = "events"
"""What has happened, as `/events` tells it."""
TAPPED: Final = "tapped"
"""Requests that a reader of `/tap` wants to see."""

LINKED: Final = "linked"
"""Whether what it says of its breakers reaches the others of the pod: it does if control answers, whatever."""

LEAVING: Final = "leaving"
"""It ends: once this is answered, nothing more is handed to it."""

# Both ways

SHARED: Final = "shared"
"""What processes say of their breakers, for all others (`core/fleet`): encoded batches."""

FLEET_SHARED: Final = "fleet_shared"
"""The same for breakers that act as one with those of other replicas: while their Redis is away these are all that
hear."""

# From control

ADDRESSES: Final = "addresses"
"""What an entry of an upstream stands for."""
PREPARE: Final = "prepare"
"""Build this snapshot beside the one in use: parts of it, the first of them begins anew."""
COMMIT: Final = "commit"
"""Put what was prepared in place."""
DISCARD: Final = "discard"
"""Forget it."""
NUMBERS: Final = "numbers"
"""Answer with a report now."""
READ: Final = "read"
"""Answer with one resource of the admin API."""
OVERRIDE: Final = "override"
"""An operator's order to breakers."""
LOG_LEVEL: Final = "log_level"
ANNOUNCE: Final = "announce"
"""Stop being ready."""
TAP: Final = "tap"
"""Who reads `/tap` now, and wants what."""
CHECKED: Final = "checked"
"""What health checks of endpoints have shown, which control makes for all."""
