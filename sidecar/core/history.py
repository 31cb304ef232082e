"""What a breaker remembers besides numbers: its last transitions, and whose outcomes led to the next one.

Both are bounded. Causes are nine tenths of a record, so only the youngest records of the history keep theirs:
a thousand breakers that flap together would otherwise hold most of a gigabyte within minutes. Telemetry has
had each record whole by then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Protocol

from sidecar.core.transition import Cause, Transition

HISTORY: Final = 256
"""Transitions that a breaker keeps."""
CAUSES: Final = 32
"""Exchanges that a transition names, and the youngest transitions of the history that still name theirs."""
ID_BYTES: Final = 128
"""Of a request id that is remembered; a client may have made it, of any length."""


class Culprit(Protocol):
    """An exchange whose outcome may cause a transition. It is read, never kept; a `Cause` is one, too."""

    @property
    def trace_id(self) -> bytes: ...
    @property
    def span_id(self) -> bytes: ...
    @property
    def request_id(self) -> bytes: ...


class History:
    """The last transitions of one breaker, and the causes gathered since the latest."""

    __slots__ = ("_causes", "_transitions")

    def __init__(self) -> None:
        # Lists: an empty one takes 56 bytes, an empty deque 760, and most breakers never open.
        self._transitions: list[Transition] = []
        self._causes: list[bytes] = []

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """Oldest first, at most 256; the youngest 32 with their causes."""
        return tuple(self._transitions)

    @property
    def last(self) -> Transition | None:
        return self._transitions[-1] if self._transitions else None

    def suspect(self, culprit: Culprit) -> None:
        """Remember whose outcome may have led to the next transition."""
        # Joined, the three ids take 120 bytes; as a Cause 240, and four times as long to make.
        causes = self._causes
        causes.append(b" ".join((culprit.trace_id, culprit.span_id, culprit.request_id[:ID_BYTES])))
        if len(causes) > CAUSES:
            del causes[0]

    def causes(self, at_most: int) -> tuple[Cause, ...]:
        """The latest causes, oldest first; at most 32 of them."""
        kept = self._causes
        return tuple(Cause(*ids.split(b" ", 2)) for ids in kept[max(0, len(kept) - at_most) :])

    def add(self, transition: Transition) -> None:
        """Record a transition; what comes after it has causes of its own."""
        self._causes.clear()
        transitions = self._transitions
        transitions.append(transition)
        if len(transitions) > HISTORY:
            del transitions[0]
        if len(transitions) > CAUSES and transitions[-CAUSES - 1].causes:
            transitions[-CAUSES - 1] = replace(transitions[-CAUSES - 1], causes=())
