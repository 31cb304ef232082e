"""The live inbound exchanges of all workers of a pod, as one of them sees it.

The app answers a request that came through one worker, and its calls may leave through any other. So each worker
publishes its own exchanges, and asks the parts of the others where its own table knows nothing. What an outbound
exchange here hangs on there is a `ForeignEntry`; it lives as long as something hangs on it.

Decides nothing of requests, cancels nothing and tells nobody: `told` and `look_again` return what is to be cancelled.
Owned by one event loop; `records.py` says how the memory is shared. Times are seconds on CLOCK_MONOTONIC, which all
processes of a machine share.
"""

from __future__ import annotations

from binascii import unhexlify
from operator import itemgetter
from struct import Struct
from typing import Final

from sidecar.core.across.dealing import Load
from sidecar.core.across.notice import code_of, reason_of
from sidecar.core.across.records import Memory, RecordReader, RecordWriter
from sidecar.core.across.segment import Segment, add_one, read_number, write_number
from sidecar.core.callers import COMPLETE, TOMBSTONE_SECONDS, CallerEntry, End, Found, Key, OtherWorkers
from sidecar.core.errors import Reason

SPAN_BYTES: Final = 8
TRACE_BYTES: Final = 16

_SPAN = Struct("=8sdQ")
"""Span id, deadline, and what `_state` makes of the rest."""
_TRACE = Struct("=16sd")
_RETRY: Final = 0x80
_LATEST_MS: Final = (1 << 56) - 1


class ForeignEntry(CallerEntry):
    """An inbound exchange of another worker, that outbound exchanges of this one hang on."""

    __slots__ = ()


class AcrossWorkers(OtherWorkers):
    """One worker's view of the shared table: its own part to write, the others' to read."""

    def __init__(self, memory: Memory, segment: Segment, worker: int) -> None:
        """Take over part number `worker`, with what a dead process left there.

        Raises:
            ValueError: the memory is not of this layout, or of other processes."""
        segment.check(memory)
        self._memory = memory
        self._parts = segment.parts
        self._worker = worker
        own = segment.parts[worker]
        self._spans = RecordWriter(memory, own.spans, SPAN_BYTES)
        self._traces = RecordWriter(memory, own.traces, TRACE_BYTES)
        for name, _ in self._traces.bodies():
            self._traces.clear(name)
        others = [part for part in segment.parts if part is not own]
        self._span_readers = [RecordReader(memory, part.spans) for part in others]
        self._trace_readers = [RecordReader(memory, part.traces) for part in others]
        self._news_at = [at for part in others for at in (part.epoch_at(), part.lost_at(worker))]
        self._news = [read_number(memory, at) for at in self._news_at]
        self._attached: dict[bytes, ForeignEntry] = {}

    def __repr__(self) -> str:
        return f"<AcrossWorkers {self._worker} of {len(self._parts)}, {len(self._attached)} foreign>"

    # What others may know of this worker's exchanges

    def entered(self, entry: CallerEntry, latest: float) -> None:
        span_id, trace_id = entry.span_id, entry.trace_id
        self._spans.put(
            span_id, _SPAN.pack(unhexlify(span_id), entry.deadline, _RETRY if entry.is_retry else 0)
        )
        if trace_id is not None:
            self._traces.put(trace_id, _TRACE.pack(unhexlify(trace_id), latest))

    def changed(self, entry: CallerEntry) -> None:
        self._spans.put(entry.span_id, _span_body(entry))

    def gone(self, span_id: bytes) -> None:
        self._spans.clear(span_id)

    def latest(self, trace_id: bytes, deadline: float | None) -> None:
        if deadline is None:
            self._traces.clear(trace_id)
        else:
            self._traces.put(trace_id, _TRACE.pack(unhexlify(trace_id), deadline))

    def lost(self, worker: int) -> None:
        """A message for `worker` could not be sent: it is to look again at all that it has attached."""
        add_one(self._memory, self._parts[self._worker].lost_at(worker))

    def tell_load(self, load: Load) -> None:
        """Of listeners whose connections are handed over."""
        own = self._parts[self._worker]
        write_number(self._memory, own.open_at(), load.open)
        write_number(self._memory, own.taken_at(), load.taken)

    def left_behind(self) -> list[CallerEntry]:
        """Tombstones that this part held when it was taken over, the first to go first (see `bury_worker`)."""
        found: list[tuple[float, CallerEntry]] = []
        for name, body in self._spans.bodies():
            entry = _entry(body)
            if entry.end is None:
                self._spans.clear(name)
            else:
                found.append((entry.end.until, entry))
        return [entry for _, entry in sorted(found, key=itemgetter(0))]

    # What this worker knows of the others'

    def find(self, span_id: bytes, key: Key, now: float) -> Found | None:
        entry = self._read(span_id)
        if entry is None:
            return None
        end = entry.end
        if end is None:
            return Found(key, entry.deadline, True, None, self._attached.get(span_id, entry))
        return Found(key, entry.deadline, True, end.why, entry) if now < end.until else None

    def latest_elsewhere(self, trace_id: bytes) -> float | None:
        key = unhexlify(trace_id)
        latest: float | None = None
        for reader in self._trace_readers:
            body = reader.find(trace_id, key)
            if body is not None:
                deadline: float = _TRACE.unpack(body)[1]
                if latest is None or deadline > latest:
                    latest = deadline
        return latest

    def attached(self, entry: CallerEntry) -> None:
        if isinstance(entry, ForeignEntry):
            self._attached[entry.span_id] = entry

    def detached(self, entry: CallerEntry) -> None:
        if isinstance(entry, ForeignEntry):
            self._attached.pop(entry.span_id, None)

    @property
    def is_attached(self) -> bool:
        """Whether anything here hangs on another worker's exchange."""
        return bool(self._attached)

    def told(self, span_id: bytes, why: Reason, now: float) -> tuple[object, ...]:
        """Another worker's exchange was cut short; return the outbound handles to cancel, in order."""
        entry = self._attached.get(span_id)
        return () if entry is None else self._over(entry, End(why, now + TOMBSTONE_SECONDS))

    def has_news(self) -> bool:
        """Whether a message for this worker was lost, or a worker was replaced, since the last time it was asked."""
        now = [read_number(self._memory, at) for at in self._news_at]
        is_new, self._news = now != self._news, now
        return is_new

    def look_again(self) -> tuple[object, ...]:
        """Read all that something here hangs on; return the outbound handles to cancel.

        What has no record any more ran its course, or its tombstone is gone as well, after 5 s: then the calls below
        it have their deadline alone."""
        handles: list[object] = []
        for entry in list(self._attached.values()):
            there = self._read(entry.span_id)
            if there is None:
                self._over(entry, COMPLETE)
            elif there.end is not None:
                handles += self._over(entry, there.end)
        return tuple(handles)

    def _over(self, entry: ForeignEntry, end: End) -> tuple[object, ...]:
        handles = tuple(entry.outbound or ())
        entry.outbound = None
        entry.end = end
        del self._attached[entry.span_id]
        return handles

    def _read(self, span_id: bytes) -> ForeignEntry | None:
        key = unhexlify(span_id)
        for reader in self._span_readers:
            body = reader.find(span_id, key)
            if body is not None:
                return _entry(body)
        return None

    # Counters

    @property
    def refused(self) -> int:
        """Exchanges and trace ids that found no place in the shared table."""
        return self._spans.refused + self._traces.refused

    @property
    def torn(self) -> int:
        """Lookups that gave up, as a record stayed half written."""
        return sum(reader.torn for reader in (*self._span_readers, *self._trace_readers))


def bury_worker(memory: Memory, segment: Segment, worker: int, now: float) -> None:
    """Whoever forks: end all exchanges of a worker that has died, so that what hangs on them ends elsewhere.

    To be called once `waitpid` has told of its death, and before the next process takes the part over.
    """
    segment.check(memory)
    part = segment.parts[worker]
    traces = RecordWriter(memory, part.traces, TRACE_BYTES)
    for name, _ in traces.bodies():
        traces.clear(name)
    write_number(memory, part.open_at(), 0)
    write_number(memory, part.taken_at(), 0)
    spans = RecordWriter(memory, part.spans, SPAN_BYTES)
    for name, body in spans.bodies():
        entry = _entry(body)
        if entry.end is None:
            entry.end = End(Reason.CALLER_GONE, now + TOMBSTONE_SECONDS)
            spans.put(name, _span_body(entry))
        elif entry.end.until <= now:
            spans.clear(name)
    add_one(memory, part.epoch_at())


def load_of(memory: Memory, segment: Segment, worker: int) -> Load:
    """What that worker told."""
    part = segment.parts[worker]
    return Load(read_number(memory, part.open_at()), read_number(memory, part.taken_at()))


def _span_body(entry: CallerEntry) -> bytes:
    end = entry.end
    state = _RETRY if entry.is_retry else 0
    if end is not None and end.why is not None:
        until = end.until * 1000.0
        state |= code_of(end.why) | (int(until) if until < _LATEST_MS else _LATEST_MS) << 8
    return _SPAN.pack(unhexlify(entry.span_id), entry.deadline, state)


def _entry(body: bytes) -> ForeignEntry:
    key, deadline, state = _SPAN.unpack(body)
    entry = ForeignEntry(key.hex().encode(), None, deadline)
    entry.is_retry = bool(state & _RETRY)
    why = reason_of(state & (_RETRY - 1))
    if why is not None:
        entry.end = End(why, (state >> 8) / 1000.0)
    return entry
