"""Records what becomes spans: records in bounded queues, on the event loop, nothing more.

Owner: the loop writes, one exporting thread takes from the left; a `deque` allows that without a lock. A full
queue drops what comes new, and counts it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable

from sidecar.core.checked import Checked
from sidecar.core.finished import FinishedExchange, with_spans
from sidecar.core.mirrored import Mirrored
from sidecar.core.observe import ObservedExchange
from sidecar.core.sources import ReloadReport
from sidecar.core.transition import State, Transition

_EVENT_CAPACITY = 1024
"""Transitions and reloads have their own queue: a flood of exchanges must not push them out."""
_COPIES_CAPACITY = 512
"""Copies of requests lie there too, and must not push anything out either."""
_MAX_OUTAGES = 8192
_ENDS_OUTAGE = (State.CLOSED, State.DISABLED)
_STARTS_OUTAGE = (State.OPEN, State.FORCED_OPEN)

Outage = tuple[Transition, Transition | None, float]
"""A breaker's first opening, what closed it (None if it is still open), and the end in seconds."""
EventRecord = Transition | Outage | ReloadReport | Checked | Mirrored


class TransitionIds:
    """Trace and span ids of transitions, known before (and whether or not) their span is exported.

    A keyed hash of breaker and sequence number: an exchange that is refused links to the opening transition
    without a table of ids, and worker processes that were given the same secret agree on them.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        """`secret` is 16 to 64 bytes of `os.urandom`, drawn anew for each run of the proxy."""
        self._secret = secret

    def of(self, transition: Transition, what: str = "transition") -> tuple[bytes, bytes]:
        """The raw trace id (16 bytes) and span id (8 bytes). `what` tells spans of one transition apart."""
        name = f"{transition.route}\0{transition.upstream}\0{transition.sequence}".encode()
        trace_id = hashlib.blake2b(name, key=self._secret, digest_size=16).digest()
        span_id = hashlib.blake2b(name + what.encode(), key=self._secret, digest_size=8).digest()
        return trace_id, span_id


class SpanRecorder:
    """The `Observe` that keeps what spans need."""

    def __init__(self, *, capacity: int, wake_at: int, wake: Callable[[], None]) -> None:
        """Hold at most `capacity` exchanges; call `wake` when `wake_at` of them wait."""
        self.exchanges: deque[FinishedExchange] = deque()
        self.events: deque[EventRecord] = deque()
        self.dropped_spans = 0
        self._capacity = capacity
        self._wake_at = wake_at
        self._wake = wake
        self._outages: dict[tuple[str, str], Transition] = {}

    def finished(self, exchange: ObservedExchange) -> FinishedExchange | None:
        """Keep a sampled exchange; the record of it, for others who keep it too."""
        if not exchange.trace.is_sampled:
            return None
        waiting = len(self.exchanges)
        if waiting >= self._capacity:
            self.dropped_spans += 1 + len(exchange.attempts)
            return None
        record = with_spans(exchange)
        self.exchanges.append(record)
        if waiting + 1 == self._wake_at:
            self._wake()
        return record

    def transitioned(self, transition: Transition) -> None:
        """Keep every transition, and the whole outage once it is over."""
        self._keep(transition)
        breaker = (transition.route, transition.upstream)
        if transition.to_state in _STARTS_OUTAGE:
            if len(self._outages) < _MAX_OUTAGES:
                self._outages.setdefault(breaker, transition)
        elif transition.to_state in _ENDS_OUTAGE:
            opened = self._outages.pop(breaker, None)
            if opened is not None:
                self._keep((opened, transition, transition.at))

    def checked(self, checked: Checked) -> None:
        """Keep a sampled check."""
        if checked.is_sampled:
            self._keep(checked)

    def mirrored(self, copy: Mirrored) -> None:
        """Keep a sampled copy of a request."""
        if len(self.events) < _COPIES_CAPACITY:
            self._keep(copy)
        else:
            self.dropped_spans += 1

    def reloaded(self, report: ReloadReport) -> None:
        self._keep(report)

    def end_outages(self, now: float) -> None:
        """At the end of the process: show the outages that are still going on. `now` is monotonic seconds."""
        for opened in self._outages.values():
            self._keep((opened, None, now))
        self._outages.clear()

    def _keep(self, record: EventRecord) -> None:
        if len(self.events) >= _EVENT_CAPACITY:
            self.dropped_spans += 1
            return
        self.events.append(record)


class Wake:
    """A flag that one thread waits for, and that others may raise at any time."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.raise_flag = self._event.set

    def wait(self, seconds: float) -> None:
        """Return when the flag is raised or `seconds` have passed; lower it."""
        self._event.wait(seconds)
        self._event.clear()
