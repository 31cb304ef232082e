"""The table of live inbound exchanges: what is found by which key, what is cancelled, what it costs."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.core.callers import CallerEntry, Callers, Found, Key
from sidecar.core.errors import Reason
from sidecar.core.tracecontext import IdSource

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16
OTHER = b"d" * 16
TRACE, TRACE_2 = b"1" * 32, b"2" * 32
GONE = Reason.CALLER_GONE


def test_each_key_in_its_order() -> None:
    callers = Callers()
    a = callers.enter(A, TRACE, 10.0, 0.0)
    b = callers.enter(B, TRACE, 20.0, 0.0)

    assert callers.find(A, B, TRACE, 0.0) == Found(Key.MEMBER, 10.0, True, None, a)
    assert callers.find(None, B, TRACE, 0.0) == Found(Key.PARENT, 20.0, True, None, b)
    assert callers.find(None, OTHER, TRACE, 0.0) == Found(Key.TRACE, 20.0, False, None, None)
    assert callers.find(None, None, TRACE, 0.0) == Found(Key.TRACE, 20.0, False, None, None)
    assert callers.find(None, OTHER, TRACE_2, 0.0) is None


def test_one_live_exchange_with_the_trace_id_bounds_and_cannot_be_attached_to() -> None:
    callers = Callers()
    callers.enter(A, TRACE, 10.0, 0.0)

    assert callers.find(None, OTHER, TRACE, 0.0) == Found(Key.TRACE, 10.0, False, None, None)


def test_the_latest_of_several_deadlines_follows_every_departure() -> None:
    callers = Callers()
    for span_id, deadline in ((A, 30.0), (B, 10.0), (C, 20.0)):
        callers.enter(span_id, TRACE, deadline, 0.0)

    latest = []
    for span_id in (A, B, C):
        found = callers.find(None, None, TRACE, 0.0)
        latest.append(found.deadline if found else None)
        callers.leave(span_id, 0.0)

    assert latest == [30.0, 20.0, 20.0]
    assert callers.find(None, None, TRACE, 0.0) is None


def test_what_outlives_a_finished_exchange_is_not_touched() -> None:
    callers = Callers()
    callers.enter(B, TRACE, 99.0, 0.0)  # A sibling in the same trace, still live.
    entry = callers.enter(A, TRACE, 10.0, 0.0)
    assert callers.attach(entry, "background")

    callers.leave(A, 1.0)

    assert callers.find(A, OTHER, TRACE, 1.0) is None
    assert callers.bury(A, 1.0, GONE) == ()
    assert not callers.attach(entry, "late")
    callers.detach(entry, "background")


@pytest.mark.parametrize(("later", "is_refused"), [(0.0, True), (4.999, True), (5.0, False), (5.001, False)])
def test_a_tombstone_refuses_for_five_seconds(later: float, is_refused: bool) -> None:
    callers = Callers()
    entry = callers.enter(A, TRACE, 10.0, 0.0)
    callers.bury(A, 2.0, GONE)

    expected = Found(Key.MEMBER, 10.0, True, GONE, entry) if is_refused else None
    assert callers.find(A, None, TRACE, 2.0 + later) == expected
    found = callers.find(None, A, TRACE, 2.0 + later)
    assert (found is not None and found.why) is (GONE if is_refused else False)
    assert not callers.attach(entry, "late")


def test_a_tombstone_is_not_found_by_its_trace_id() -> None:
    callers = Callers()
    callers.enter(A, TRACE, 10.0, 0.0)
    callers.bury(A, 1.0, GONE)

    assert callers.find(None, OTHER, TRACE, 1.0) is None


def test_expired_tombstones_are_dropped_by_whatever_comes_next() -> None:
    for touch in ("enter", "leave", "bury"):
        callers = Callers()
        callers.enter(A, TRACE, 10.0, 0.0)
        callers.bury(A, 0.0, GONE)
        if touch == "enter":
            callers.enter(B, TRACE, 10.0, 5.0)
            callers.leave(B, 5.0)
        elif touch == "leave":
            callers.leave(B, 5.0)
        else:
            callers.bury(B, 5.0, GONE)
        assert len(callers) == 0


def test_bury_returns_what_hangs_on_the_exchange_once() -> None:
    callers = Callers()
    entry = callers.enter(A, TRACE, 10.0, 0.0)
    other = callers.enter(B, TRACE, 10.0, 0.0)
    for outbound in ("one", "two", "three"):
        assert callers.attach(entry, outbound)
    callers.attach(other, "not ours")
    callers.detach(entry, "two")
    callers.detach(entry, "never there")

    assert callers.bury(A, 1.0, GONE) == ("one", "three")
    assert callers.bury(A, 1.0, GONE) == ()
    callers.leave(A, 1.0)
    assert len(callers) == 2


def test_unknown_ids_are_harmless() -> None:
    callers = Callers()
    callers.leave(A, 0.0)

    assert callers.bury(A, 0.0, GONE) == ()
    assert callers.find(A, B, TRACE, 0.0) is None


def test_a_span_id_that_is_entered_twice_ends_the_older_entry_and_cancels_nothing() -> None:
    callers = Callers()
    older = callers.enter(A, TRACE, 10.0, 0.0)
    callers.attach(older, "of the older")

    newer = callers.enter(A, TRACE_2, 20.0, 0.0)

    assert not callers.attach(older, "late")
    assert callers.find(None, None, TRACE, 0.0) is None
    assert callers.find(A, None, TRACE, 0.0) == Found(Key.MEMBER, 20.0, True, None, newer)
    assert callers.bury(A, 0.0, GONE) == ()
    callers.enter(A, TRACE, 30.0, 1.0)  # Now over a tombstone, which must not take it along.
    callers.leave(B, 5.0)
    assert callers.find(A, None, TRACE, 5.0) is not None


def test_at_capacity_the_oldest_live_exchange_makes_room() -> None:
    callers = Callers(capacity=2)
    for span_id in (A, B, C):
        callers.enter(span_id, TRACE, 10.0, 0.0)

    assert (len(callers), callers.evicted) == (2, 1)
    assert callers.find(A, None, TRACE, 0.0) is None
    assert callers.find(B, None, TRACE, 0.0) is not None
    callers.leave(A, 0.0)  # The evicted one ends later, as if nothing had been.
    assert len(callers) == 2


@pytest.mark.parametrize("left", range(4))
def test_the_oldest_is_the_oldest_of_those_that_are_still_there(left: int) -> None:
    callers = Callers(capacity=4)
    spans = [b"%016d" % n for n in range(7)]
    for span_id in spans[:4]:
        callers.enter(span_id, TRACE, 10.0, 0.0)
    callers.leave(spans[left], 0.0)
    for span_id in spans[4:]:
        callers.enter(span_id, TRACE, 10.0, 0.0)

    rest = [span_id for span_id in spans if span_id != spans[left]]
    assert [callers.find(span_id, None, TRACE, 0.0) is not None for span_id in rest] == [False] * 2 + [
        True
    ] * 4


def test_an_entry_that_is_over_keeps_nothing_alive() -> None:
    callers = Callers()
    left, buried = (callers.enter(span_id, TRACE, 10.0, 0.0) for span_id in (A, B))
    callers.attach(left, "outbound")
    callers.attach(buried, "outbound")

    callers.leave(A, 0.0)
    callers.bury(B, 0.0, GONE)

    assert (left.outbound, buried.outbound) == (None, None)


def test_at_capacity_tombstones_make_room_before_live_exchanges() -> None:
    callers = Callers(capacity=2)
    callers.enter(A, TRACE, 10.0, 0.0)
    callers.enter(B, TRACE, 10.0, 0.0)
    callers.bury(B, 0.0, GONE)

    callers.enter(C, TRACE, 10.0, 0.0)

    assert callers.find(A, None, TRACE, 0.0) is not None
    assert callers.find(B, None, TRACE, 0.0) is None
    assert (len(callers), callers.evicted) == (2, 1)


def test_repr_is_the_operators_view() -> None:
    callers = Callers()
    entry = callers.enter(A, TRACE, 10.0, 0.0)
    callers.enter(B, TRACE, 10.0, 0.0)
    callers.bury(B, 0.0, GONE)

    assert repr(callers) == "<Callers 1 live, 1 tombstones, 0 evicted>"
    assert repr(entry) == "<CallerEntry aaaaaaaaaaaaaaaa live>"
    callers.bury(A, 0.0, GONE)
    assert repr(entry) == "<CallerEntry aaaaaaaaaaaaaaaa caller_gone>"


def test_a_hundred_thousand_live_exchanges_cost_the_oldest_ones_what_the_table_does_for_them() -> None:
    """Nobody is refused: the evicted just run on without it, and the newest 65,536 have all of it."""
    ids, callers = IdSource(), Callers()
    entered = [(ids.span_id(), ids.trace_id()) for _ in range(100_000)]

    for n, (span_id, trace_id) in enumerate(
        entered
    ):  # one scan for each eviction would not end in the test's time
        entry = callers.enter(span_id, trace_id, float(n), 0.0)
        callers.attach(entry, n)

    assert (len(callers), callers.evicted) == (65_536, 34_464)
    for n, (span_id, trace_id) in enumerate(entered):
        exact, by_trace = callers.find(span_id, None, trace_id, 0.0), callers.find(None, None, trace_id, 0.0)
        if n < 34_464:
            assert (exact, by_trace) == (None, None)
            assert callers.bury(span_id, 0.0, GONE) == ()
        else:
            assert exact is not None
            assert by_trace is not None
            assert (exact.deadline, by_trace.deadline) == (n, n)
            assert callers.bury(span_id, 0.0, GONE) == (n,)


def test_a_full_table_takes_at_most_24_mib_with_its_ids() -> None:
    tracemalloc.start()
    try:
        ids, callers = IdSource(), Callers()
        for n in range(65_536):
            callers.enter(ids.span_id(), ids.trace_id(), n + 0.5, 0.0)
        filled = tracemalloc.get_traced_memory()[0] / 2**20
        for n in range(70_000):  # Evictions make the dicts grow once more.
            callers.enter(ids.span_id(), ids.trace_id(), n + 0.5, 0.0)
        churned = tracemalloc.get_traced_memory()[0] / 2**20
    finally:
        tracemalloc.stop()
    assert (len(callers), callers.evicted) == (65_536, 70_000)
    assert filled <= 24
    assert churned <= 24


def test_one_trace_id_for_all_costs_no_scan() -> None:
    """65,536 live exchanges in one trace, and the latest leaves each time: a scan would take minutes."""
    ids, callers = IdSource(), Callers()
    spans = [ids.span_id() for _ in range(65_536)]
    for n, span_id in enumerate(spans):
        callers.enter(span_id, TRACE, float(n), 0.0)

    for n in range(65_535, 0, -1):
        found = callers.find(None, None, TRACE, 0.0)
        assert found is not None
        assert found.deadline == n
        callers.leave(spans[n], 0.0)


@dataclass
class Known:
    """What the naive bookkeeper knows of one span id."""

    trace_id: bytes
    deadline: float
    entry: CallerEntry
    outbound: list[str] = field(default_factory=list)
    why: Reason | None = None
    until: float = 0.0


class TableMachine(RuleBasedStateMachine):
    """The table against lists that are scanned; few ids, so that they meet, and room for six entries."""

    def __init__(self) -> None:
        super().__init__()
        self.callers = Callers(capacity=6, tombstone_seconds=5.0)
        self.known: dict[bytes, Known] = {}  # Live ones in the order of entry.
        self.tombs: dict[bytes, Known] = {}  # In the order of burial.
        self.now = 0.0
        self.evicted = 0
        self.count = 0

    @initialize()
    def begin(self) -> None:
        self.now = 100.0

    def expire(self) -> None:
        self.tombs = {span: one for span, one in self.tombs.items() if one.until > self.now}

    @rule(span=st.sampled_from(range(9)), trace=st.sampled_from([TRACE, TRACE_2]), seconds=st.integers(0, 6))
    def one_enters(self, span: int, trace: bytes, seconds: int) -> None:
        self.enters(span, trace, seconds)

    def enters(self, span: int, trace: bytes, seconds: int) -> None:
        span_id = b"%016d" % span
        self.expire()
        self.known.pop(span_id, None)
        self.tombs.pop(span_id, None)
        if len(self.known) + len(self.tombs) >= 6:
            self.evicted += 1
            victims = self.tombs or self.known
            del victims[next(iter(victims))]
        trace_id = bytes(bytearray(trace))
        entry = self.callers.enter(span_id, trace_id, self.now + seconds, self.now)
        self.known[span_id] = Known(trace, self.now + seconds, entry)

    @rule(first=st.integers(0, 8), count=st.integers(5, 9))
    def many_enter(self, first: int, count: int) -> None:
        for number in range(count):
            self.enters((first + number) % 9, TRACE, number)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def completes(self, data: st.DataObject) -> None:
        span_id = data.draw(st.sampled_from(list(self.known)))
        self.callers.leave(span_id, self.now)
        del self.known[span_id]

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def is_cancelled(self, data: st.DataObject) -> None:
        span_id = data.draw(st.sampled_from(list(self.known)))
        one = self.known.pop(span_id)
        assert self.callers.bury(span_id, self.now, GONE) == tuple(one.outbound)
        one.why, one.until = GONE, self.now + 5.0
        self.expire()
        self.tombs[span_id] = one

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def calls_out(self, data: st.DataObject) -> None:
        span_id = data.draw(st.sampled_from(list(self.known)))
        one = self.known[span_id]
        self.count += 1
        found = self.callers.find(span_id, None, TRACE, self.now)
        assert found is not None
        assert found.entry is one.entry
        assert found.entry is not None
        assert self.callers.attach(found.entry, f"call {self.count}")
        one.outbound.append(f"call {self.count}")
        if len(one.outbound) > 2:
            self.callers.detach(found.entry, one.outbound.pop(0))

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.999, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(span=st.sampled_from(range(9)))
    def something_unknown_ends(self, span: int) -> None:
        span_id = b"%016d" % span
        if span_id not in self.known:
            self.callers.leave(span_id, self.now)
            assert self.callers.bury(span_id, self.now, GONE) == ()
            self.expire()

    @invariant()
    def every_key_finds_what_a_scan_finds(self) -> None:
        for span in range(9):
            span_id = b"%016d" % span
            one = self.known.get(span_id) or self.tombs.get(span_id)
            if one is not None and one.why is not None and one.until <= self.now:
                one = None
            member = self.callers.find(span_id, None, b"?" * 32, self.now)
            parent = self.callers.find(None, span_id, b"?" * 32, self.now)
            if one is None:
                assert member is None
                assert parent is None
            else:
                assert member == Found(Key.MEMBER, one.deadline, True, one.why, one.entry)
                assert parent == Found(Key.PARENT, one.deadline, True, one.why, one.entry)
        for trace_id in (TRACE, TRACE_2):
            sharing = [one.deadline for one in self.known.values() if one.trace_id == trace_id]
            found = self.callers.find(None, OTHER, trace_id, self.now)
            assert found == (Found(Key.TRACE, max(sharing), False, None, None) if sharing else None)

    @invariant()
    def bounds_hold(self) -> None:
        live = len(self.known)
        assert live <= len(self.callers) <= 6
        assert self.callers.evicted == self.evicted


TableMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestTable = TableMachine.TestCase


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 9)),
        max_size=300,
    )
)
def test_a_shared_trace_knows_its_latest_deadline(steps: list[tuple[bool, int]]) -> None:
    """Deadlines collide and most entries leave early, so that the heap is compacted too."""
    callers, live, ids = Callers(), {}, IdSource()
    for is_entry, number in steps * 3:
        if is_entry or not live:
            span_id = ids.span_id()
            callers.enter(span_id, TRACE, float(number), 0.0)
            live[span_id] = float(number)
        else:
            span_id = list(live)[number % len(live)]
            callers.leave(span_id, 0.0)
            del live[span_id]
        found = callers.find(None, None, TRACE, 0.0)
        assert (found.deadline if found else None) == max(live.values(), default=None)


FORWARDS = st.sampled_from(["member", "verbatim", "trace_only", "nothing"])


@dataclass(eq=False)
class Call:
    """One exchange in a tree of calls: outbound from its caller's app, inbound at its own."""

    span_id: bytes
    trace_id: bytes
    deadline: float
    caller: Call | None
    is_exact: bool
    is_over: bool = False
    is_cancelled: bool = False


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_trees_of_calls_are_bounded_and_cancelled_by_descent_alone(data: st.DataObject) -> None:
    """Apps forward our member, `traceparent` as it is, the trace id alone or nothing; traces are shared."""
    ids, callers, calls = IdSource(), Callers(), []
    now = 0.0

    def inbound(trace_id: bytes, deadline: float, caller: Call | None, is_exact: bool) -> Call:
        call = Call(ids.span_id(), trace_id, deadline, caller, is_exact)
        callers.enter(call.span_id, trace_id, deadline, now)
        calls.append(call)
        return call

    def cancel(call: Call) -> None:
        call.is_over = call.is_cancelled = True
        for below in callers.bury(call.span_id, now, GONE):
            assert isinstance(below, Call)
            if not below.is_over:
                cancel(below)

    for _ in range(data.draw(st.integers(1, 40))):
        now += data.draw(st.sampled_from([0.0, 0.1, 1.0, 6.0]))
        live = [call for call in calls if not call.is_over]
        action = data.draw(st.sampled_from(["client", "call", "call", "call", "finish", "cancel"]))
        if action == "client" or not calls:
            trace_id = data.draw(st.sampled_from([TRACE, TRACE_2]))  # Chosen by clients, so shared.
            inbound(trace_id, now + data.draw(st.integers(1, 15)), None, True)
        elif action == "call":
            caller = data.draw(st.sampled_from(calls))  # Also from one that is over: late or background.
            how = data.draw(FORWARDS)
            member = caller.span_id if how == "member" else None
            parent = caller.span_id if how == "verbatim" else ids.span_id()
            trace_id = caller.trace_id if how != "nothing" else ids.trace_id()
            found = callers.find(member, parent, trace_id, now)
            route_deadline = now + data.draw(st.integers(1, 15))
            if found is None:
                inbound(trace_id, route_deadline, caller, False)
                continue
            if found.is_exact:
                assert found.deadline == caller.deadline
                assert (found.why is not None) == caller.is_cancelled
                assert found.why is not None or not caller.is_over
            else:
                assert found.entry is None
                assert found.deadline == max(one.deadline for one in live if one.trace_id == trace_id)
            if found.why is None:
                call = inbound(trace_id, min(route_deadline, found.deadline), caller, found.is_exact)
                if found.entry is not None:
                    assert callers.attach(found.entry, call)
        elif live and action == "finish":
            call = data.draw(st.sampled_from(live))
            call.is_over = True
            callers.leave(call.span_id, now)
        elif live:
            before = {id(one) for one in calls if one.is_cancelled}
            root = data.draw(st.sampled_from(live))
            cancel(root)
            for one in calls:
                if one.is_cancelled and id(one) not in before:
                    assert descends_exactly(one, root)
                if not one.is_over:
                    assert not (one.is_exact and one.caller is root)

    for call in calls:
        if call.is_exact and call.caller is not None:
            assert call.deadline <= call.caller.deadline


def descends_exactly(call: Call, root: Call) -> bool:
    """True if every step up from `call` to `root` was found by an exact key."""
    step: Call | None = call
    while step is not None and step is not root:
        if not step.is_exact:
            return False
        step = step.caller
    return step is root
