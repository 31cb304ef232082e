"""Whether control answers a worker: if so, what it says of its breakers reaches the other workers of its pod, and
control hands over connections (`hands.py`).

The part `shared_link` asks each second, since a control process that hangs lends no permits, passes nothing on and
accepts nobody. Owned by the worker's event loop.
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
MOST_UNANSWERED: Final = 4
"""Questions on end, in 12 s: whoever hangs for so long is to be replaced. No seconds are counted, since this worker
may have been stopped itself: then one question alone has no answer."""


class PodLink:
    """Of one worker."""

    def __init__(self, control_end: ControlEnd) -> None:
        self.part: Part[None] = Part("shared_link", self._look)
        self.on_found: list[Callable[[], None]] = []
        """Whom to tell that control is there; said again at each look."""
        self.on_lost: list[Callable[[], None]] = []
        """Whom to tell that it is not, or does not answer."""
        self.on_changed: list[Callable[[], None]] = []
        """Whom to tell that `is_answering` is another than before."""
        self.on_hung: list[Callable[[], None]] = []
        """Whom to tell that it is there, and to be replaced."""
        self.is_answering = False
        self._unanswered = 0
        self._control_end = control_end

    def found(self) -> None:
        """Control is there."""
        self._unanswered = 0
        self._tell(self.on_found, is_answering=True)

    def lost(self) -> None:
        """It is not, or does not answer."""
        self._tell(self.on_lost, is_answering=False)

    def _tell(self, those: list[Callable[[], None]], *, is_answering: bool) -> None:
        is_other, self.is_answering = self.is_answering is not is_answering, is_answering
        for told in (*those, *(self.on_changed if is_other else ())):
            told()

    def _had_no_answer(self) -> None:
        self._unanswered += 1
        self.lost()
        if self._unanswered >= MOST_UNANSWERED:
            for told in self.on_hung:
                told()

    async def _look(self, mailbox: Mailbox[None]) -> None:
        while True:
            await mailbox.get(LOOK_SECONDS)
            if not self._control_end.is_connected:
                continue
            try:
                await self._control_end.ask(kinds.LINKED, None, ANSWER_SECONDS)
            except NoAnswer:
                self._had_no_answer()
            else:
                self.found()
