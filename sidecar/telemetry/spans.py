"""Records what becomes spans: records in bounded queues, on the event loop, nothing more.

Owner: the loop writes, one exporting thread takes from the left; a `deque` allows that without a lock. A full
queue drops what comes new, and counts it.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sidecar.core.checked import Checked
from sidecar.core.mirrored import Mirrored
from sidecar.core.observe import ObservedAttempt, ObservedExchange
from sidecar.core.recorded import ExchangeFields, RecordedAttempt, RecordedExchange, recorded
from sidecar.core.sources import ReloadReport
from sidecar.core.transition import Transition

_EVENT_CAPACITY = 1024
"""Transitions and reloads have their own queue: a flood of exchanges must not push them out."""
_COPIES_CAPACITY = 512
"""Copies of requests lie there too, and must not push anything out either."""


class Ending(NamedTuple):
    """The process ends."""

    at: float
    """Monotonic seconds."""
    rejected: Mapping[tuple[str, str], int]
    """By route and upstream: how many requests each breaker has refused."""


EventRecord = Transition | Ending | ReloadReport | Checked | Mirrored


class TransitionIds:
    """Trace and span ids of transitions, known before (and whether or not) their span is exported.

    A keyed hash of the breaker and of when it was: an exchange that is refused links to the outage without a table of
    ids, and worker processes that were given the same secret agree on them.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        """`secret` is 16 to 64 bytes of `os.urandom`, drawn anew for each run of the proxy."""
        self._secret = secret

    def of(self, transition: Transition) -> tuple[bytes, bytes]:
        """The raw trace id (16 bytes) and span id (8 bytes) of a change's own span."""
        moment = f"{transition.sequence} {transition.at!r}"
        return self._of((transition.route, transition.upstream, moment), "transition")

    def of_outage(
        self, route: str, upstream: str, began: float, what: str = "opened", part: int = 1
    ) -> tuple[bytes, bytes]:
        """Those of a span of an outage: `opened` is its root. `part`: an outage that lasts has several traces."""
        return self._of((route, upstream, f"outage {began!r} {part}"), what)

    def cause_of(self, transition: Transition) -> tuple[bytes, bytes]:
        """Those of the span that explains a change: the root of its outage, or its own."""
        if transition.outage is None:
            return self.of(transition)
        return self.of_outage(transition.route, transition.upstream, transition.outage)

    def _of(self, names: tuple[str, ...], what: str) -> tuple[bytes, bytes]:
        name = "\0".join(names).encode()
        trace_id = hashlib.blake2b(name, key=self._secret, digest_size=16).digest()
        span_id = hashlib.blake2b(name + b"\0" + what.encode(), key=self._secret, digest_size=8).digest()
        return trace_id, span_id


def spans_of(attempts: Sequence[ObservedAttempt | RecordedAttempt], span_id: bytes) -> int:
    """How many spans an exchange makes: its own, and that of each attempt that it does not stand for."""
    return 1 + len(attempts) - (bool(attempts) and attempts[0].span_id == span_id)


def spans_in(record: ExchangeFields) -> int:
    """The same of its record."""
    told = RecordedExchange(*record)
    return spans_of([RecordedAttempt(*one) for one in told.attempts], told.span_id)


class SpanRecorder:
    """The `Observe` that keeps what spans need."""

    def __init__(self, *, capacity: int, wake_at: int, wake: Callable[[], None]) -> None:
        """Hold at most `capacity` exchanges; call `wake` when `wake_at` of them wait."""
        self.exchanges: deque[ExchangeFields] = deque()
        self.events: deque[EventRecord] = deque()
        self.dropped_spans = 0
        self._capacity = capacity
        self._wake_at = wake_at
        self._wake = wake

    def finished(self, exchange: ObservedExchange) -> None:
        """Keep a sampled exchange."""
        if not exchange.trace.is_sampled:
            return
        waiting = len(self.exchanges)
        if waiting >= self._capacity:
            self.dropped_spans += spans_of(exchange.attempts, exchange.trace.span_id)
            return
        self.exchanges.append(recorded(exchange))
        if waiting + 1 == self._wake_at:
            self._wake()

    def transitioned(self, transition: Transition) -> None:
        """Keep every transition."""
        self._keep(transition)

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

    def end(self, ending: Ending) -> None:
        """The process ends: outages that are still going on are shown. It has its place in a full queue, too."""
        self.events.append(ending)

    def _keep(self, record: EventRecord) -> None:
        if len(self.events) >= _EVENT_CAPACITY:
            self.dropped_spans += 1
            return
        self.events.append(record)


class Wake:
    """A flag that one thread waits for, and that others may raise at any time."""

    def __init__(self) -> None:
        self._lowered = threading.Lock()
        """Held while the flag is lowered. An `Event` would not do: who is interrupted within its `set` by one who
        sets it too (the collector of garbage may tell of an error at any moment) waits for itself."""
        self._lowered.acquire()

    def raise_flag(self) -> None:
        """Any thread may do so, also from within this very call."""
        if self._lowered.locked():
            with contextlib.suppress(RuntimeError):  # somebody else has raised it meanwhile
                self._lowered.release()

    def wait(self, seconds: float | None) -> None:
        """Return when the flag is raised or `seconds` have passed, None: however long it takes; lower it."""
        self._lowered.acquire(timeout=-1 if seconds is None else max(0.0, seconds))
