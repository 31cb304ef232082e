"""Several workers' tables as one: what each finds, what ends with whom, and what a dead worker leaves."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.core.across.exchanges import AcrossWorkers, bury_worker
from sidecar.core.across.segment import MOST_WORKERS, Segment
from sidecar.core.callers import Callers, Found, Key
from sidecar.core.errors import Reason

A, B = b"a" * 16, b"b" * 16
OTHER = b"d" * 16
TRACE, TRACE_2 = b"1" * 32, b"2" * 32
GONE = Reason.CLIENT_GONE
WORKERS = 3


class Workers:
    """Shared memory with the tables of `WORKERS` workers."""

    def __init__(self, capacity: int = 65_536) -> None:
        self.segment = Segment(WORKERS, 3 * 1024)
        self.memory = mmap.mmap(-1, self.segment.size)
        self.segment.begin(self.memory)
        self.across: list[AcrossWorkers] = []
        self.callers: list[Callers] = []
        self.capacity = capacity
        for worker in range(WORKERS):
            across, callers = self.born(worker)
            self.across.append(across)
            self.callers.append(callers)

    def born(self, worker: int) -> tuple[AcrossWorkers, Callers]:
        across = AcrossWorkers(self.memory, self.segment, worker)
        return across, Callers(self.capacity, others=across)

    def replace(self, worker: int, now: float) -> None:
        """It has died; another process takes its place."""
        bury_worker(self.memory, self.segment, worker, now)
        self.across[worker], self.callers[worker] = self.born(worker)


def test_each_key_finds_the_exchange_of_another_worker() -> None:
    at = Workers()
    at.callers[0].enter(A, TRACE, 10.0, 0.0, is_retry=True)
    at.callers[1].enter(B, TRACE, 20.0, 0.0)
    there = at.callers[2]

    member = there.find(A, OTHER, TRACE_2, 0.0)
    assert member is not None
    assert member.entry is not None
    assert member[:4] == (Key.MEMBER, 10.0, True, None)
    assert member.entry.is_retry
    parent = there.find(None, B, TRACE_2, 0.0)
    assert parent is not None
    assert parent[:4] == (Key.PARENT, 20.0, True, None)
    assert there.find(None, OTHER, TRACE, 0.0) == Found(Key.TRACE, 20.0, False, None, None)
    assert there.find(None, OTHER, TRACE_2, 0.0) is None
    assert there.find(OTHER, B, TRACE, 0.0) is None, "a member that is unknown is background work"


def test_the_latest_deadline_of_a_trace_follows_all_workers() -> None:
    at = Workers()
    at.callers[0].enter(A, TRACE, 30.0, 0.0)
    at.callers[0].enter(B, TRACE, 10.0, 0.0)
    at.callers[1].enter(OTHER, TRACE, 20.0, 0.0)

    def latest() -> list[float | None]:
        found = [callers.find(None, None, TRACE, 0.0) for callers in at.callers]
        return [one.deadline if one is not None else None for one in found]

    assert latest() == [30.0] * 3
    at.callers[0].extend(B, 40.0)
    assert latest() == [40.0] * 3
    at.callers[0].leave(B, 0.0)
    at.callers[0].leave(A, 0.0)
    assert latest() == [20.0] * 3
    at.callers[1].bury(OTHER, 0.0, GONE)
    assert latest() == [None] * 3


def test_what_pushes_an_exchange_out_of_a_full_table_takes_it_from_the_others_too() -> None:
    at = Workers(capacity=2)
    for span_id in (A, B, OTHER):
        at.callers[0].enter(span_id, TRACE, 10.0, 0.0)
    assert [at.callers[1].find(one, None, TRACE, 0.0) is None for one in (A, B, OTHER)] == [
        True,
        False,
        False,
    ]
    at.callers[0].bury(B, 0.0, GONE)
    at.callers[0].enter(A, TRACE, 10.0, 0.0)
    assert at.callers[1].find(B, None, TRACE, 0.0) is None
    assert at.callers[0].evicted == 2


def test_what_finds_no_place_in_shared_memory_is_counted_and_lives_on_in_its_own_worker() -> None:
    at = Workers()
    spans = [b"%016x" % n for n in range(1, 8_000)]
    for span_id in spans:
        at.callers[0].enter(span_id, None, 10.0, 0.0)

    known = sum(at.callers[1].find(span_id, None, TRACE, 0.0) is not None for span_id in spans)
    assert known == len(spans) - at.across[0].refused
    assert at.across[0].refused > 0
    assert all(at.callers[0].find(span_id, None, TRACE, 0.0) for span_id in spans)
    for span_id in spans:
        at.callers[0].leave(span_id, 0.0)
    assert not any(at.callers[1].find(span_id, None, TRACE, 0.0) for span_id in spans)


def test_a_process_that_was_not_forked_from_the_one_that_began_the_memory_is_refused() -> None:
    at = Workers()
    at.memory[40:48] = b"\0" * 8 if at.memory[24:32] == b"\0" * 8 else at.memory[40:48]
    at.memory[24:32] = bytes(byte ^ 1 for byte in at.memory[24:32])  # as another seed of hashes would have it
    with pytest.raises(ValueError, match="that of other processes"):
        AcrossWorkers(at.memory, at.segment, 0)
    with pytest.raises(ValueError, match="at most 256"):
        Segment(MOST_WORKERS + 1, 1)


@dataclass
class Inbound:
    """What the naive bookkeeper knows of one exchange."""

    worker: int
    trace_id: bytes
    deadline: float
    why: Reason | None = None
    until: float = 0.0
    outbound: dict[str, int] = field(default_factory=dict)
    """Handles with their workers."""


class ManyWorkers(RuleBasedStateMachine):
    """Three workers against one list. Messages come late, or not at all; workers die."""

    def __init__(self) -> None:
        super().__init__()
        self.at = Workers()
        self.now = 100.0
        self.known: dict[bytes, Inbound] = {}
        self.late: list[tuple[int, bytes]] = []
        self.due: set[str] = set()
        """Handles that must be returned by the time that all was told."""
        self.returned: list[str] = []
        self.count = 0

    @rule(
        worker=st.integers(0, WORKERS - 1), trace=st.sampled_from([TRACE, TRACE_2]), seconds=st.integers(0, 9)
    )
    def enters(self, worker: int, trace: bytes, seconds: int) -> None:
        self.count += 1
        span_id = b"%016x" % self.count
        self.at.callers[worker].enter(span_id, trace, self.now + seconds, self.now)
        self.known[span_id] = Inbound(worker, trace, self.now + seconds)

    def live(self) -> list[bytes]:
        return [span_id for span_id, one in self.known.items() if one.why is None]

    @precondition(live)
    @rule(data=st.data(), worker=st.integers(0, WORKERS - 1))
    def calls_out(self, data: st.DataObject, worker: int) -> None:
        span_id = data.draw(st.sampled_from(self.live()))
        found = self.at.callers[worker].find(span_id, None, TRACE, self.now)
        assert found is not None
        assert found.entry is not None
        self.count += 1
        handle = f"call {self.count}"
        assert self.at.callers[worker].attach(found.entry, handle)
        self.known[span_id].outbound[handle] = worker

    @precondition(lambda self: any(self.known[span_id].outbound for span_id in self.live()))
    @rule(data=st.data())
    def a_call_ends(self, data: st.DataObject) -> None:
        span_id = data.draw(st.sampled_from([one for one in self.live() if self.known[one].outbound]))
        handle = data.draw(st.sampled_from(list(self.known[span_id].outbound)))
        worker = self.known[span_id].outbound.pop(handle)
        found = self.at.callers[worker].find(span_id, None, TRACE, self.now)
        assert found is not None
        assert found.entry is not None
        self.at.callers[worker].detach(found.entry, handle)

    @precondition(live)
    @rule(data=st.data())
    def completes(self, data: st.DataObject) -> None:
        span_id = data.draw(st.sampled_from(self.live()))
        self.at.callers[self.known.pop(span_id).worker].leave(span_id, self.now)

    @precondition(live)
    @rule(data=st.data(), fates=st.lists(st.sampled_from(["told", "late", "lost"]), min_size=3, max_size=3))
    def is_cancelled(self, data: st.DataObject, fates: list[str]) -> None:
        span_id = data.draw(st.sampled_from(self.live()))
        one = self.known[span_id]
        one.why, one.until = GONE, self.now + 5.0
        self.due |= one.outbound.keys()
        self.returned += map(str, self.at.callers[one.worker].bury(span_id, self.now, GONE))
        for worker, fate in enumerate(fates):
            if worker == one.worker:
                continue
            if fate == "told":
                self.tell(worker, span_id)
            elif fate == "late":
                self.late.append((worker, span_id))
            else:
                self.at.across[one.worker].lost(worker)

    def tell(self, worker: int, span_id: bytes) -> None:
        self.returned += map(str, self.at.across[worker].told(span_id, GONE, self.now))

    @precondition(lambda self: self.late)
    @rule()
    def a_late_message_comes(self) -> None:
        self.tell(*self.late.pop(0))

    @rule(worker=st.integers(0, WORKERS - 1))
    def sweeps(self, worker: int) -> None:
        if self.at.across[worker].has_news():
            self.returned += map(str, self.at.across[worker].look_again())
            self.due -= self.forgotten(worker) - set(self.returned)

    def forgotten(self, worker: int) -> set[str]:
        """Calls of this worker whose exchange was cut so long ago that only a message can tell; who looks again
        before that comes takes it that the exchange ran its course."""
        return {
            handle
            for one in self.known.values()
            if one.why is not None and one.until <= self.now
            for handle, where in one.outbound.items()
            if where == worker
        }

    @rule(seconds=st.sampled_from([0.5, 4.5, 5.0]))
    def time_passes(self, seconds: float) -> None:
        for worker in range(WORKERS):  # as each does all the time
            self.sweeps(worker)
        self.now += seconds

    @rule(worker=st.integers(0, WORKERS - 1))
    def dies(self, worker: int) -> None:
        for one in self.known.values():
            died = {handle for handle, where in one.outbound.items() if where == worker}
            self.due -= died - set(self.returned)
            one.outbound = {handle: where for handle, where in one.outbound.items() if where != worker}
            if one.worker == worker and one.why is None:
                one.why, one.until = Reason.CALLER_GONE, self.now + 5.0
                self.due |= one.outbound.keys()
        self.late = [(to, span_id) for to, span_id in self.late if to != worker]
        self.at.replace(worker, self.now)

    @invariant()
    def each_worker_finds_what_a_scan_finds(self) -> None:
        for span_id, one in self.known.items():
            if one.why is not None and one.until <= self.now:
                continue
            for callers in self.at.callers:
                found = callers.find(span_id, None, TRACE, self.now)
                assert found is not None
                assert found[:4] == (Key.MEMBER, one.deadline, True, one.why)
        for trace_id in (TRACE, TRACE_2):
            sharing = [
                one.deadline for one in map(self.known.get, self.live()) if one and one.trace_id == trace_id
            ]
            expected = Found(Key.TRACE, max(sharing), False, None, None) if sharing else None
            for callers in self.at.callers:
                assert callers.find(None, OTHER, trace_id, self.now) == expected

    @invariant()
    def nothing_ends_twice_or_without_reason(self) -> None:
        assert len(self.returned) == len(set(self.returned))
        assert set(self.returned) <= self.due

    def teardown(self) -> None:
        for worker, span_id in self.late:
            self.tell(worker, span_id)
        for worker in range(WORKERS):
            self.sweeps(worker)
        assert set(self.returned) == self.due
        assert not any(across.torn + across.refused for across in self.at.across)


ManyWorkers.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestManyWorkers = ManyWorkers.TestCase
