"""Which live inbound exchange an outbound request descends from (SPEC 5.3, 5.4).

Remembers each inbound exchange under the span id that was sent to the app and under its trace id, finds it
again from what the app sends on, and knows which outbound exchanges hang on it. Decides no budget and cancels
nothing: `bury` returns what is to be cancelled. Times are seconds on the monotonic clock.

Owned by one event loop; the other workers of the pod, if there are any, publish theirs (`OtherWorkers`). Our span
ids are 64 random bits, so a match by span id is exact and may cancel. A trace id may be chosen by a client: it
bounds, by the latest deadline among the live exchanges that share it, and reaches no exchange. It is the only key
that many entries can share, hence the heap in `_SharedTrace`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from enum import Enum
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Final, NamedTuple

from sidecar.core.errors import Reason
from sidecar.core.ties import Ties

CAPACITY: Final = 65_536
TOMBSTONE_SECONDS: Final = 5.0

_EVICTION_BATCH: Final = 1024
"""Entries that one look for the oldest brings: the scan over what was evicted before costs each 0.1 µs."""


class Key(Enum):
    """What an outbound request was recognised by, best first."""

    MEMBER = "member"
    """Our own `tracestate` member."""
    PARENT = "parent"
    """A parent id that is the span id we sent: an app that copies `traceparent` as it is."""
    TRACE = "trace"
    """The trace id alone."""


_MEMBER = Key.MEMBER  # A member of an Enum costs 50 ns to look up, a global 5.
_PARENT = Key.PARENT
_TRACE = Key.TRACE


class End(NamedTuple):
    """How an exchange ended."""

    why: Reason | None
    """None if it ran its course."""
    until: float
    """How long that is remembered."""


COMPLETE: Final = End(None, 0.0)


class CallerEntry:
    """One inbound exchange in the table. Read only outside this module."""

    __slots__ = ("deadline", "end", "is_retry", "outbound", "span_id", "trace_id")

    def __init__(self, span_id: bytes, trace_id: bytes | None, deadline: float) -> None:
        self.span_id = span_id
        self.trace_id = trace_id
        """None where it is not known by that."""
        self.deadline = deadline
        self.is_retry = False
        """Its request was a retry, so the calls that are made for it are marked as such."""
        self.outbound: dict[object, None] | None = None
        """Handles of the outbound exchanges below, in the order they came; None without any."""
        self.end: End | None = None
        """None while the exchange is live."""

    def __repr__(self) -> str:
        state = "live"
        if self.end is not None:
            state = self.end.why.value if self.end.why is not None else "complete"
        return f"<CallerEntry {self.span_id.decode()} {state}>"


class Found(NamedTuple):
    """The inbound exchange, or the several, that an outbound request belongs to."""

    key: Key
    deadline: float
    """The exchange's own; for a match by trace id the latest of all that share it."""
    is_exact: bool
    """False for a match by trace id: it bounds and must not cancel."""
    why: Reason | None
    """Set for a tombstone: refuse the request for this reason."""
    entry: CallerEntry | None
    """To `attach` to; None unless exact."""


class _SharedTrace:
    """Several live entries under one trace id: how many, and the latest of their deadlines.

    A heap, since a client may give all of its requests one trace id and let the latest leave first: 1.5 µs
    at 65,536 entries, where a scan takes 3 ms. What leaves early is taken out when it reaches the top.
    """

    __slots__ = ("_gone", "_heap", "live", "trace_id")

    def __init__(self, trace_id: bytes) -> None:
        self.trace_id = trace_id
        self.live = 0
        self._heap: list[float] = []  # Negated, as heapq knows minima only.
        self._gone: dict[float, int] = {}  # Left, but still in the heap; never its top.

    @property
    def latest(self) -> float:
        """The latest deadline; there must be a live entry."""
        return -self._heap[0]

    def add(self, deadline: float) -> None:
        self.live += 1
        heappush(self._heap, -deadline)

    def remove(self, deadline: float) -> None:
        """Forget one entry with this deadline, which must have been added."""
        self.live -= 1
        self._gone[-deadline] = self._gone.get(-deadline, 0) + 1
        self._drop_gone_tops()
        if len(self._heap) > 2 * self.live + 64:
            self._compact()

    def _drop_gone_tops(self) -> None:
        heap, gone = self._heap, self._gone
        while heap and heap[0] in gone:
            top = heappop(heap)
            gone[top] -= 1
            if not gone[top]:
                del gone[top]

    def _compact(self) -> None:
        """Rebuild without what left: half of the heap, so O(1) for each of those."""
        kept, gone = [], self._gone
        for one in self._heap:
            if one in gone:
                gone[one] -= 1
                if not gone[one]:
                    del gone[one]
            else:
                kept.append(one)
        heapify(kept)
        self._heap = kept


class OtherWorkers(ABC):
    """The tables of the pod's other workers, and what they are to know of this one (`across/exchanges.py`)."""

    __slots__ = ()

    @abstractmethod
    def entered(self, entry: CallerEntry, latest: float) -> None:
        """`entry` is live from now on; `latest`: the latest deadline here with its trace id, or its own."""

    @abstractmethod
    def changed(self, entry: CallerEntry) -> None:
        """Its deadline is another one, or it is a tombstone now."""

    @abstractmethod
    def gone(self, span_id: bytes) -> None:
        """It is known no more."""

    @abstractmethod
    def latest(self, trace_id: bytes, deadline: float | None) -> None:
        """The latest deadline of this worker's live entries with that trace id; None: there are none any more."""

    @abstractmethod
    def find(self, span_id: bytes, key: Key, now: float) -> Found | None:
        """What another worker has under that span id; `key` is what it was recognised by."""

    @abstractmethod
    def latest_elsewhere(self, trace_id: bytes) -> float | None:
        """The latest deadline of the other workers' live entries with that trace id."""

    @abstractmethod
    def attached(self, entry: CallerEntry) -> None:
        """Something hangs on `entry` here, which may be another worker's."""

    @abstractmethod
    def detached(self, entry: CallerEntry) -> None:
        """Nothing does any more."""

    @abstractmethod
    def left_behind(self) -> list[CallerEntry]:
        """Tombstones of the process that was this worker before, the first to go first."""


class Callers:
    """The table of live inbound exchanges, with tombstones of those that were cut short.

    Bounded: at capacity the oldest tombstone makes room, else the oldest live exchange (which then only loses
    what this table does for it). `evicted` counts both.
    """

    __slots__ = (
        "_by_span",
        "_by_trace",
        "_capacity",
        "_oldest",
        "_others",
        "_tombs",
        "_tombstone_seconds",
        "evicted",
        "ties",
    )

    def __init__(
        self,
        capacity: int = CAPACITY,
        tombstone_seconds: float = TOMBSTONE_SECONDS,
        others: OtherWorkers | None = None,
    ) -> None:
        """`others`: None for a pod of one worker."""
        self._capacity = capacity
        self._others = others
        self._tombstone_seconds = tombstone_seconds
        self._by_span: dict[bytes, CallerEntry] = {}
        self._by_trace: dict[bytes, CallerEntry | _SharedTrace] = {}  # Live ones only.
        self._oldest: deque[CallerEntry] = (
            deque()
        )  # In order of entry, some over by now; filled when one must go.
        self._tombs: deque[CallerEntry] = deque()  # In the order of their ends.
        self.evicted = 0
        self.ties = Ties()
        if others is not None:
            for entry in others.left_behind():
                self._by_span[entry.span_id] = entry
                self._tombs.append(entry)
            while len(self._tombs) > capacity:
                self._drop_oldest_tomb()

    def __len__(self) -> int:
        """Live exchanges and tombstones."""
        return len(self._by_span)

    def __repr__(self) -> str:
        live = len(self._by_span) - len(self._tombs)
        return f"<Callers {live} live, {len(self._tombs)} tombstones, {self.evicted} evicted>"

    def enter(
        self,
        span_id: bytes,
        trace_id: bytes | None,
        deadline: float,
        now: float,
        *,
        is_retry: bool = False,
    ) -> CallerEntry:
        """Remember a live inbound exchange under the span id that the app is sent, one for each exchange.

        `trace_id` None: a call that brings nothing but that is none of this exchange's. To be called before the span
        id leaves this process: the app may answer through any worker.

        A span id that is already there (a random collision) ends its older entry, which cancels nothing.
        """
        if span_id in self._by_span:
            self._forget(self._by_span[span_id])
        if self._tombs:
            self._drop_expired(now)
        if len(self._by_span) >= self._capacity:
            self._evict()
        entry = CallerEntry(span_id, trace_id, deadline)
        entry.is_retry = is_retry
        self._by_span[span_id] = entry
        latest = deadline
        if trace_id is not None:
            shared = self._by_trace.setdefault(trace_id, entry)
            if shared is not entry:
                latest = self._share_trace(entry, trace_id, shared)
        if self._others is not None:
            self._others.entered(entry, latest)
        return entry

    def is_live(self, span_id: bytes) -> bool:
        """Whether it is an exchange's here that has not ended."""
        entry = self._by_span.get(span_id)
        return entry is not None and entry.end is None

    def extend(self, span_id: bytes, deadline: float) -> None:
        """A live exchange may take longer than was said. Harmless if it is gone."""
        entry = self._by_span.get(span_id)
        if entry is None or entry.end is not None:
            return
        shared = None if entry.trace_id is None else self._by_trace[entry.trace_id]
        if isinstance(shared, _SharedTrace):
            shared.add(deadline)
            shared.remove(entry.deadline)
        entry.deadline = deadline
        if self._others is not None:
            self._others.changed(entry)
            if entry.trace_id is not None:
                self._others.latest(entry.trace_id, self._latest(entry.trace_id))

    def leave(self, span_id: bytes, now: float) -> None:
        """End an exchange that ran its course; what it started may go on without it (background work).

        Unknown ids (evicted) and tombstones are left as they are.
        """
        entry = self._by_span.get(span_id)
        if entry is not None and entry.end is None:
            del self._by_span[span_id]
            self._end(entry, COMPLETE)
            if self._others is not None:
                self._others.gone(span_id)
        if self._tombs:
            self._drop_expired(now)

    def bury(self, span_id: bytes, now: float, why: Reason) -> tuple[object, ...]:
        """End an exchange that was cancelled or expired; return the outbound handles to cancel, in order.

        Its requests that are still to come are refused for `tombstone_seconds`. An exchange that is unknown
        or buried already has nothing to cancel.
        """
        self._drop_expired(now)
        entry = self._by_span.get(span_id)
        if entry is None or entry.end is not None:
            return ()
        outbound = tuple(entry.outbound) if entry.outbound is not None else ()
        self._end(entry, End(why, now + self._tombstone_seconds))
        self._tombs.append(entry)
        if self._others is not None:
            self._others.changed(entry)
        return outbound

    def find(
        self, own_member: bytes | None, parent_id: bytes | None, trace_id: bytes, now: float
    ) -> Found | None:
        """Return what an outbound request belongs to, from its trace context; None if nothing is known.

        A member that is given but unknown names an exchange that has ended: the request is background work,
        and its trace's other exchanges have no say in it.
        """
        key = _MEMBER
        entry = None
        if own_member is not None:
            entry = self._by_span.get(own_member)
            if entry is None:
                return None if self._others is None else self._others.find(own_member, _MEMBER, now)
        elif parent_id is not None:
            key = _PARENT
            entry = self._by_span.get(parent_id)
        if entry is None:
            if parent_id is not None and self._others is not None:
                elsewhere = self._others.find(parent_id, _PARENT, now)
                if elsewhere is not None:
                    return elsewhere
            return self._find_by_trace(trace_id)
        end = entry.end
        if end is None:
            return Found(key, entry.deadline, True, None, entry)
        return Found(key, entry.deadline, True, end.why, entry) if now < end.until else None

    def _find_by_trace(self, trace_id: bytes) -> Found | None:
        deadline = self._latest(trace_id)
        if self._others is not None:
            elsewhere = self._others.latest_elsewhere(trace_id)
            if deadline is None or (elsewhere is not None and elsewhere > deadline):
                deadline = elsewhere
        return None if deadline is None else Found(_TRACE, deadline, False, None, None)

    def _latest(self, trace_id: bytes) -> float | None:
        """The latest deadline of those here that share this trace id."""
        shared = self._by_trace.get(trace_id)
        if shared is None:
            return None
        return shared.deadline if isinstance(shared, CallerEntry) else shared.latest

    def attach(self, entry: CallerEntry, outbound: object) -> bool:
        """Hang an outbound exchange on `entry`; False if that is over, and there is nothing to wait for.

        `outbound` is hashed by identity or value and returned by `bury`.
        """
        if entry.end is not None:
            return False
        if entry.outbound is None:
            entry.outbound = {outbound: None}
            if self._others is not None:
                self._others.attached(entry)
        else:
            entry.outbound[outbound] = None
        return True

    def detach(self, entry: CallerEntry, outbound: object) -> None:
        """Take an outbound exchange that ended off `entry`; harmless if either is gone."""
        if entry.outbound is not None:
            entry.outbound.pop(outbound, None)
            if not entry.outbound:
                entry.outbound = None
                if self._others is not None:
                    self._others.detached(entry)

    def _share_trace(self, entry: CallerEntry, trace_id: bytes, other: CallerEntry | _SharedTrace) -> float:
        """Let `entry` share its trace id with what is there already; return the latest of their deadlines."""
        if isinstance(other, CallerEntry):
            shared = _SharedTrace(other.trace_id or trace_id)
            shared.add(other.deadline)
            self._by_trace[trace_id] = shared
        else:
            shared = other
        shared.add(entry.deadline)
        entry.trace_id = shared.trace_id  # One copy of the bytes for all of them.
        return shared.latest

    def _end(self, entry: CallerEntry, end: End) -> None:
        """Take a live `entry` out of the trace index; nothing hangs on it any more."""
        trace_id = entry.trace_id
        if trace_id is not None:
            shared = self._by_trace[trace_id]
            latest: float | None = None
            if shared is entry:
                del self._by_trace[trace_id]
            elif isinstance(shared, _SharedTrace):
                shared.remove(entry.deadline)
                if shared.live:
                    latest = shared.latest
                else:
                    del self._by_trace[trace_id]
            if self._others is not None:
                self._others.latest(trace_id, latest)
        entry.outbound = None
        entry.end = end

    def _forget(self, entry: CallerEntry) -> None:
        """Take `entry` out altogether."""
        del self._by_span[entry.span_id]
        if self._others is not None:
            self._others.gone(entry.span_id)
        if entry.end is None:
            self._end(entry, COMPLETE)
        else:
            self._tombs.remove(entry)  # A scan, but only where a random id came twice within five seconds.

    def _drop_expired(self, now: float) -> None:
        tombs = self._tombs
        while tombs and (end := tombs[0].end) is not None and end.until <= now:
            self._drop_oldest_tomb()

    def _drop_oldest_tomb(self) -> None:
        span_id = self._tombs.popleft().span_id
        del self._by_span[span_id]
        if self._others is not None:
            self._others.gone(span_id)

    def _evict(self) -> None:
        """Make room for one. Tombstones go first, so that a flood of cancellations costs no live exchange."""
        self.evicted += 1
        if self._tombs:
            self._drop_oldest_tomb()
        else:
            self._forget(self._oldest_live())

    def _oldest_live(self) -> CallerEntry:
        """Return the oldest entry; there must be one, and no tombstone.

        The dict is in the order of entry, but to reach its first key means to step over all that was removed
        before it. So many are taken at once: links between the entries cost 1 MiB and 0.1 µs a request.
        """
        oldest = self._oldest
        while True:
            while oldest:
                entry = oldest.popleft()
                if entry.end is None:
                    return entry
            oldest.extend(islice(self._by_span.values(), _EVICTION_BATCH))
