"""Whether what a worker says of its breakers reaches the other workers of its pod: it does if control answers.

The part `shared_link` asks each second, since a control process that hangs lends no permits and passes nothing on.
Owned by the worker's event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sidecar.runtime.actor import Mailbox, Part
from sidecar.runtime.workers import kinds
from sidecar.runtime.workers.channel import NoAnswer
from sidecar.runtime.workers.control_end import ControlEnd

LOOK_SECONDS: Final = 1.0
"""Between two looks whether control answers."""
ANSWER_SECONDS: Final = 2.0
"""A control process that has not answered by then hangs."""


class PodLink:
    """Of one worker."""

    def __init__(self, control_end: ControlEnd) -> None:
        self.part: Part[None] = Part("shared_link", self._look)
        self.on_found: list[Callable[[], None]] = []
        """Whom to tell that control is there; said again at each look."""
        self.on_lost: list[Callable[[], None]] = []
        """Whom to tell that it is not, or does not answer."""
        self._control_end = control_end

    def found(self) -> None:
        """Control is there."""
        for told in self.on_found:
            told()

    def lost(self) -> None:
        """It is not, or does not answer."""
        for told in self.on_lost:
            told()

    async def _look(self, mailbox: Mailbox[None]) -> None:
        while True:
            await mailbox.get(LOOK_SECONDS)
            if not self._control_end.is_connected:
                continue
            try:
                await self._control_end.ask(kinds.LINKED, None, ANSWER_SECONDS)
            except NoAnswer:
                self.lost()
            else:
                self.found()
