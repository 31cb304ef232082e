"""What a breaker remembers besides numbers: its last transitions, and whose outcomes led to the next one.

Both are bounded, for each breaker and, with an `Archive`, for all of a process: 256 records of a thousand breakers
that flap together are 60 MiB, most of a gigabyte with all their causes. Whoever wants to keep every record whole has
had it by then: log, telemetry and `/events` are told of each as it happens.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from struct import Struct
from typing import Final, Protocol

from sidecar.core.transition import Cause, Transition

HISTORY: Final = 256
"""Transitions that a breaker keeps at most."""
KEPT: Final = 8
"""Transitions that a breaker keeps whatever others do: two whole outages, or three."""
CAUSES: Final = 32
"""Exchanges that a transition names, and the youngest transitions of the history that still name theirs."""
KEPT_CAUSES: Final = 1
"""Exchanges that an older transition still names: the one that tipped the scales."""
ARCHIVED: Final = 1024
"""Transitions that a process keeps beyond the last 8 of each breaker."""
ARCHIVED_WHOLE: Final = 64
"""Transitions of a process that keep all their causes."""
ID_BYTES: Final = 128
"""Of a request id that is remembered; a client may have made it, of any length."""
DETAIL_CHARACTERS: Final = 128
"""Of what is remembered in words."""

_Remembered = tuple[bytes, str, int, object, str, bool]
"""When it was, whether it is sampled and the three ids, joined; then error type, status, endpoint and detail, and
whether it counts in a row. Joined, the first ones take 130 bytes; as a Cause 290, and four times as long to make. The
rest is shared with whoever made it."""
_MOMENT: Final = Struct("<d?")


class Culprit(Protocol):
    """An exchange whose outcome may cause a transition. It is read, never kept; a `Cause` is one, too."""

    @property
    def trace_id(self) -> bytes: ...
    @property
    def span_id(self) -> bytes: ...
    @property
    def request_id(self) -> bytes: ...
    @property
    def is_sampled(self) -> bool: ...


class Archive:
    """What all histories of one process share: who has to forget when another remembers.

    A thousand breakers that flap stay within 17 MiB, all in all (a test holds it). Owned by the event loop.
    """

    __slots__ = ("_kept", "_whole")

    def __init__(self) -> None:
        self._kept: deque[tuple[History, int]] = deque()
        self._whole: deque[tuple[History, int]] = deque()

    def add(self, history: History, transition: Transition) -> None:
        """Take note of a new record; older ones of any breaker make room for it."""
        entry = history, transition.sequence
        self._kept.append(entry)
        if len(self._kept) > ARCHIVED:
            oldest, sequence = self._kept.popleft()
            oldest.forget(sequence)
        if len(transition.causes) <= KEPT_CAUSES:
            return
        self._whole.append(entry)
        if len(self._whole) > ARCHIVED_WHOLE:
            oldest, sequence = self._whole.popleft()
            oldest.shorten(sequence)


class History:
    """The last transitions of one breaker, and the causes gathered since the latest."""

    __slots__ = ("_archive", "_causes", "_transitions")

    def __init__(self, archive: Archive | None = None) -> None:
        """Without an archive it is bounded by its own measures alone."""
        # Lists: an empty one takes 56 bytes, an empty deque 760, and most breakers never open.
        self._archive = archive
        self._transitions: list[Transition] = []
        self._causes: list[_Remembered] = []

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """Oldest first, at most 256; those without their causes name the last one alone."""
        return tuple(self._transitions)

    @property
    def archive(self) -> Archive | None:
        return self._archive

    @property
    def last(self) -> Transition | None:
        return self._transitions[-1] if self._transitions else None

    def find(self, sequence: int) -> Transition | None:
        """The record of that number, None once it is forgotten. The last 8 are always there."""
        place = self._place(sequence)
        return None if place is None else self._transitions[place]

    def suspect(
        self,
        culprit: Culprit,
        error_type: str = "",
        status: int = 0,
        endpoint: object = None,
        detail: str = "",
        *,
        at: float = 0.0,
        is_in_row: bool = False,
    ) -> None:
        """Remember whose outcome may have led to the next transition, what it was, and when (monotonic seconds)."""
        moment = _MOMENT.pack(at, culprit.is_sampled)
        ids = b" ".join((moment + culprit.trace_id, culprit.span_id, culprit.request_id[:ID_BYTES]))
        causes = self._causes
        causes.append((ids, error_type, status, endpoint, detail[:DETAIL_CHARACTERS], is_in_row))
        if len(causes) > CAUSES:
            del causes[0]

    def withdraw(self, culprit: Culprit) -> None:
        """Forget what was remembered of this one while it ran: more is known of it now."""
        ids = b" ".join((culprit.trace_id, culprit.span_id, b""))
        self._causes = [one for one in self._causes if not one[0].startswith(ids, _MOMENT.size)]

    def causes(self, at_most: int, *, in_row: bool = False) -> tuple[Cause, ...]:
        """The latest causes, oldest first; at most 32 of them. `in_row`: those alone that count in a row."""
        kept = [one for one in self._causes if one[-1]] if in_row else self._causes
        return tuple(_cause(*one[:-1]) for one in kept[max(0, len(kept) - at_most) :])

    def add(self, transition: Transition) -> None:
        """Record a transition; what comes after it has causes of its own."""
        self._causes = []
        transitions = self._transitions
        transitions.append(transition)
        if len(transitions) > HISTORY:
            del transitions[0]
        if len(transitions) > CAUSES:
            self.shorten(transitions[-CAUSES - 1].sequence)
        if self._archive is not None:
            self._archive.add(self, transition)

    def forget(self, sequence: int) -> None:
        """Drop the oldest record, if it is as old as that one and not among the last 8."""
        transitions = self._transitions
        if len(transitions) > KEPT and transitions[0].sequence <= sequence:
            del transitions[0]

    def shorten(self, sequence: int) -> None:
        """Let that record name its last cause alone."""
        place = self._place(sequence)
        if place is not None:
            transition = self._transitions[place]
            if len(transition.causes) > KEPT_CAUSES:
                self._transitions[place] = replace(transition, causes=transition.causes[-KEPT_CAUSES:])

    def _place(self, sequence: int) -> int | None:
        transitions = self._transitions
        if not transitions:
            return None
        place = sequence - transitions[0].sequence  # numbers have no gaps
        return place if 0 <= place < len(transitions) else None


def _cause(ids: bytes, error_type: str, status: int, endpoint: object, detail: str) -> Cause:
    at, is_sampled = _MOMENT.unpack_from(ids)
    trace_id, span_id, request_id = ids[_MOMENT.size :].split(b" ", 2)
    where = "" if endpoint is None else str(endpoint)
    return Cause(trace_id, span_id, request_id, error_type, status, where, detail, at, is_sampled)
