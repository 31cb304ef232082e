"""The telemetry in use, and what was lost by any since the start.

A room's threads cannot be started again once they have ended: another room goes on with the same numbers, and the
one that ended is asked for what it lost until it loses nothing more. Owned by the event loop; `dropped` may be called
from any thread.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import field

from sidecar.core.dataclass import dataclass
from sidecar.core.numbers import Numbers
from sidecar.core.snapshot import Telemetry
from sidecar.core.sources import Sources
from sidecar.core.transition import Transition
from sidecar.telemetry.identity import resource_attributes
from sidecar.telemetry.log_lines import Level
from sidecar.telemetry.room import TelemetryRoom

Lost = dict[tuple[str, str], int]
"""Telemetry that was lost, by (signal, reason)."""


@dataclass(slots=True, eq=False)
class TelemetryRooms:
    """One room at a time."""

    settings: Telemetry
    """Those of the start: a change of them waits for the next one."""
    numbers: Numbers
    sources: Callable[[], Sources]
    environ: Mapping[str, str]
    log_fd: int
    on_transition: Callable[[Transition], None]
    secret: bytes | None = field(default=None, repr=False)
    """The same in all processes of a pod, see `TelemetryRoom`; None: there is one."""
    level: Level | None = None
    """Of the log's lines, as an operator has set it; None: nobody has."""
    room: TelemetryRoom = field(init=False)
    """The one in use."""
    _secret: bytes = field(init=False, repr=False)
    _past: tuple[Lost, tuple[TelemetryRoom, ...]] = field(init=False)
    """What rooms lost that have ended, and those that may still lose something, the present one last. Replaced as a
    whole, since a collecting thread reads it."""

    resource: Mapping[str, str] = field(init=False)
    """Who produces the telemetry."""

    def __post_init__(self) -> None:
        self.resource = resource_attributes(self.settings.service_name, self.environ)
        self._secret = self.secret or os.urandom(32)
        self.room = self._make(None)
        self._past = {}, (self.room,)

    def set_level(self, level: Level) -> None:
        """Write only log lines of at least this level from now on."""
        self.level = level
        self.room.log.set_level(level)

    def renew(self) -> TelemetryRoom:
        """Start another room in place of one whose threads have ended, and return it."""
        ended, self.room = self.room, self._make(self.room)
        self.room.start()
        lost, rooms = self._past
        self._past = lost, (*rooms, self.room)
        stopping = asyncio.get_running_loop().run_in_executor(None, ended.stop)
        stopping.add_done_callback(lambda _: self._forget(ended))
        return self.room

    def dropped(self) -> Lost:
        """What was lost since the start, by (signal, reason): also by rooms that a new one stands for."""
        lost, rooms = self._past
        counts = Counter(lost)
        for room in rooms:
            counts.update(room.dropped())
        return counts

    def _make(self, instead_of: TelemetryRoom | None) -> TelemetryRoom:
        room = TelemetryRoom(
            self.settings,
            self.numbers,
            self.sources,
            environ=self.environ,
            log_fd=self.log_fd,
            secret=self._secret,
            instead_of=instead_of,
            on_transition=self.on_transition,
        )
        if self.level is not None:
            room.log.set_level(self.level)
        return room

    def _forget(self, ended: TelemetryRoom) -> None:
        """It loses nothing more: what it lost is kept, and not the room."""
        lost, rooms = self._past
        left = tuple(room for room in rooms if room is not ended)
        self._past = Counter(lost) + Counter(ended.dropped()), left
