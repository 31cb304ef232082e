"""Passes a worker's events, and what readers of `/tap` want to see, on to control.

Bounded by the ring of events, and by the queue of each reader. Owned by the worker's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from sidecar.admin.events import Events
from sidecar.admin.server import AdminServer
from sidecar.admin.tap import Tap, Taps, Wanted
from sidecar.runtime.actor import Mailbox
from sidecar.runtime.workers import kinds
from sidecar.runtime.workers.control_end import ControlEnd

PAUSE_SECONDS: Final = 0.05
"""Between two messages, so that a burst of events is one."""


class ToldEvents:
    """The part `told_events`."""

    def __init__(self, events: Events, taps: Taps, admin: AdminServer, control: ControlEnd) -> None:
        """`admin` puts events into words."""
        self._events = events
        self._taps = taps
        self._admin = admin
        self._control = control
        self._wake = asyncio.Event()
        self._place = events.last_number + 1
        self._by_number: dict[int, Tap] = {}
        events.on_added = self._wake.set

    def tap(self, wanted: Mapping[int, Wanted]) -> None:
        """Who reads `/tap` now, by a number that control gives, and wants what. Another control process gives the
        same numbers to others."""
        for number in [one for one, tap in self._by_number.items() if wanted.get(one) != tap.wanted]:
            self._taps.readers.discard(self._by_number.pop(number))
        for number, what in wanted.items():
            if number not in self._by_number:
                tap = self._by_number[number] = Tap(self._taps, None, what)
                tap.wake = self._wake
                self._taps.readers.add(tap)
        self._taps.changed()

    async def run(self, _mailbox: Mailbox[Any]) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._pass_on():
                self._wake.set()  # there may be more
            await asyncio.sleep(PAUSE_SECONDS)

    def pass_on_all(self) -> None:
        """What nobody has been told yet; at the end, when nothing more comes."""
        while self._pass_on():
            pass

    def _pass_on(self) -> bool:
        """Whether there was anything."""
        found, lost = self._events.since(self._place)
        if found:
            self._place = found[-1].number + 1
            self._control.tell(kinds.EVENTS, ([(one.kind, self._admin.words(one)) for one in found], lost))
        has_any = bool(found)
        for number, tap in self._by_number.items():
            rows, missed = tap.rows()
            if rows or missed:
                self._control.tell(kinds.TAPPED, (number, rows, missed))
                has_any = True
        return has_any
