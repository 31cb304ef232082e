"""Sees forty times a second whether the loop was held, for as long as somebody needs to know.

The sweep rests while no client waits; what the sidecar asks by itself is judged by its time all the same. Owned by
the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sidecar.forwarding.service import Service

PULSE_SECONDS: Final = 0.025


def _always() -> bool:
    return True


class Pulse:
    """One timer, armed again while it is wanted."""

    __slots__ = ("_is_wanted", "_service", "_timer")

    def __init__(self, service: Service, is_wanted: Callable[[], bool] = _always) -> None:
        """`is_wanted` is asked at each beat whether another is to come; without it, it goes on until `end`."""
        self._service = service
        self._is_wanted = is_wanted
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Pulse {'rests' if self._timer is None else 'beats'}>"

    def begin(self) -> None:
        """Somebody needs to know from now on; nothing new if somebody does already."""
        if self._timer is None:
            due = self._service.clock() + PULSE_SECONDS
            self._timer = self._service.loop.call_later(PULSE_SECONDS, self._beat, due)

    def end(self) -> None:
        """Nobody needs to know any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self, due: float) -> None:
        self._timer = None
        # That it is late is no sign that clients bring too much.
        self._service.sweep.pace.fired(due, self._service.clock(), is_busy=False)
        if self._is_wanted():
            self.begin()
