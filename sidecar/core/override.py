"""What an operator may say of a breaker, and the record of it. Immutable, so that it may cross threads."""

from __future__ import annotations

from enum import Enum

from sidecar.core.dataclass import dataclass


class Override(Enum):
    """What an operator may ask for."""

    OPEN = "open"
    """FORCED_OPEN: refuse everything."""
    CLOSE = "close"
    """FORCED_CLOSED: admit everything."""
    AUTO = "auto"
    """Back to what the policy's mode says."""


@dataclass(frozen=True, slots=True)
class Order:
    """An override that is on, or (with AUTO) the end of one. Times are monotonic seconds."""

    action: Override
    since: float
    """When the override began, also in the record of its end."""
    until: float | None
    """None: until somebody says otherwise. Of an end: None where somebody has said so."""
    by: str
    """Who said it, such as `user@host`; empty where nobody told. Of an end by time: who had made it."""


@dataclass(frozen=True, slots=True)
class Command:
    """What an operator has said, to the breakers of one route."""

    route: str
    upstreams: tuple[str, ...]
    action: Override
    seconds: float | None
    """How long from now; None: until somebody says otherwise, and with AUTO."""
    by: str
    is_for_fleet: bool = False
    """For the same breakers of all replicas."""
