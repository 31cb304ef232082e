"""What stands in each process of a pod, whatever it is for: numbers, telemetry and a data path that tells them.

Each of the three composition roots (`worker`, `workers/worker_process`, `workers/control_process`) makes one, and
gives it to its `Control`. All of it is owned by the process's event loop.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from sidecar.admin.events import Events
from sidecar.core.dataclass import dataclass
from sidecar.core.memory_budget import MemoryBudget
from sidecar.core.numbers import Numbers
from sidecar.core.observe import ObservedExchange
from sidecar.core.propagation.chain import chain_of
from sidecar.core.snapshot import Snapshot
from sidecar.core.sources import Sources
from sidecar.runtime.assembly import Names
from sidecar.runtime.container import Container
from sidecar.runtime.datapath import DataPath
from sidecar.runtime.file_limits import FileLimits
from sidecar.runtime.memory_watch import budget_bytes
from sidecar.runtime.telemetry_rooms import TelemetryRooms
from sidecar.telemetry.log_lines import Level
from sidecar.transport.bind import Bind

if TYPE_CHECKING:
    from sidecar.runtime.crossing import Joined


@dataclass(frozen=True, slots=True)
class Ground:
    """What a process finds when it starts."""

    environ: Mapping[str, str]
    limits: FileLimits
    """What it may have open."""
    container: Container | None
    """Has a limit of memory; None: nothing has."""
    log_fd: int = 1
    """Gets the access log and events."""
    clock: Callable[[], float] = time.monotonic
    """Monotonic seconds; the loop's own in tests."""
    rng: random.Random = field(default_factory=random.Random)
    """Draws whatever is left to chance on a request's way."""
    secret: bytes | None = field(default=None, repr=False)
    """The same in all processes of a pod, see `TelemetryRoom`; None: there is one."""
    log_level: str | None = None
    """What an operator has set before this process began; None: nothing."""


@dataclass(frozen=True, slots=True)
class Foundation:
    """What a process is built on."""

    events: Events
    numbers: Numbers
    rooms: TelemetryRooms
    datapath: DataPath


def lay(
    ground: Ground,
    snapshot: Snapshot,
    sources: Callable[[], Sources],
    names: Names,
    bind: Bind,
    joined: Joined | None = None,
) -> Foundation:
    """`sources`: of what metrics read, called from telemetry's threads once these have started. `names`: who knows
    the addresses of names. `bind`: where listeners get their sockets from. `joined`: what this process shares with
    the other workers of its pod; None: there are none."""
    live: set[ObservedExchange] = set()
    events = Events()
    numbers = Numbers(
        live,
        snapshot.telemetry.duration_bounds,
        snapshot.limits.series,
        is_exponential=snapshot.telemetry.native_histograms,
    )
    level = ground.log_level
    rooms = TelemetryRooms(
        snapshot.telemetry,
        numbers,
        sources,
        ground.environ,
        ground.log_fd,
        events.transitioned,
        ground.secret,
        None if level is None else Level[level.upper()],
    )
    # Before the first request: who sends metrics asks for these buckets by a variable of the environment.
    numbers.is_exponential = numbers.is_exponential or rooms.room.settings.is_exponential
    datapath = DataPath(
        clock=ground.clock,
        rng=ground.rng,
        names=names,
        numbers=numbers,
        observe=rooms.room.observer,
        decide=rooms.room.decide,
        propagation=chain_of(rooms.room.settings.propagators),
        live=live,
        max_open_connections=ground.limits.max_open_connections,
        max_visitors=ground.limits.max_visitors,
        memory=MemoryBudget(budget_bytes(snapshot.limits, ground.container)),
        zone=ground.environ.get("SIDECAR_ZONE") or None,
        bind=bind,
        joined=joined,
    )
    return Foundation(events, numbers, rooms, datapath)
