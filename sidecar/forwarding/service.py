"""What all exchanges of one process share. Built and owned by `runtime/worker.py`."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sidecar.core.callers import Callers
from sidecar.core.observe import Observe
from sidecar.core.routing import RoutingTable
from sidecar.core.tracecontext import IdSource
from sidecar.forwarding.live import LiveRoute
from sidecar.forwarding.sweep import Sweep

if TYPE_CHECKING:
    from sidecar.forwarding.exchange import Exchange


@dataclass(slots=True, eq=False)
class Service:
    """The data path's surroundings. `tables` is replaced as a whole by a reload; the rest stays."""

    loop: asyncio.AbstractEventLoop
    clock: Callable[[], float]
    rng: random.Random
    ids: IdSource
    observe: Observe
    sweep: Sweep
    callers: Callers
    decide: Callable[[bool | None, bytes], bool]
    """(the parent's sampled flag or None, the trace id) -> is sampled."""
    tables: Mapping[str, RoutingTable[LiveRoute]] = field(default_factory=dict)
    """By listener."""
    has_egress: bool = False
    """Whether any route takes the app's own calls: only then inbound exchanges need to be remembered."""
    exchanges: set[Exchange] = field(default_factory=set)
    """All that are live."""
    max_open_connections: int = sys.maxsize
    """Connections with clients over all listeners, and as many with upstreams: what the limit of open files is enough
    for (`runtime/file_limits.py`). Beyond it an exchange is `overloaded`, by our own lack."""
    is_draining: bool = False
    """From here on each answer closes its connection."""
    is_closed_to_new: bool = False
    """From here on what still arrives is answered 503."""
