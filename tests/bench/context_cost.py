"""What trace context, deadlines, the table of callers and admission cost, in nanoseconds for each operation.

    python tests/bench/context_cost.py

Each figure is the best of many short rounds, so that other work on the machine does not count.
"""

from __future__ import annotations

import timeit
import tracemalloc
from collections.abc import Callable

from sidecar.core.admission import BudgetAdmission, Quantiles
from sidecar.core.callers import Callers
from sidecar.core.deadline import budget, grpc_timeout, timeout_fields, with_baggage_deadline
from sidecar.core.errors import Reason
from sidecar.core.snapshot import AdmissionPolicy, DeadlinePolicy, Mode
from sidecar.core.tracecontext import (
    IdSource,
    format_traceparent,
    format_tracestate,
    read,
)

ROUNDS, CALLS = 200, 2000
TRACE, PARENT = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
TRACEPARENT = b"00-" + TRACE + b"-" + PARENT + b"-01"
OWN = b"sidecar=" + PARENT
FIELDS = {b"host": b"a", b"user-agent": b"b", b"accept": b"*/*", b"traceparent": TRACEPARENT, b"x-a": b"1"}


def show(name: str, call: Callable[[], object]) -> None:
    """Print the cost of `call` less that of an empty one."""
    empty = min(timeit.repeat(lambda: None, number=CALLS, repeat=ROUNDS))
    best = min(timeit.repeat(call, number=CALLS, repeat=ROUNDS))
    print(f"{name:58} {(best - empty) / CALLS * 1e9:7.0f} ns")


def show_tracecontext() -> None:
    ids = IdSource()
    show("read: traceparent alone", lambda: read(TRACEPARENT, None, ids))
    show("read: nothing (a new trace)", lambda: read(None, None, ids))
    show("read: with our member", lambda: read(TRACEPARENT, OWN, ids))
    show("read: with ours and two others", lambda: read(TRACEPARENT, OWN + b",dd=s:1,congo=t61", ids))
    show("span_id", ids.span_id)
    show("format_traceparent", lambda: format_traceparent(TRACE, PARENT, 3))
    show("format_tracestate", lambda: format_tracestate(PARENT, b"congo=t61"))


def show_deadline() -> None:
    policy = DeadlinePolicy()
    one = FIELDS | {b"x-envoy-expected-rq-timeout-ms": b"1500"}
    grpc = one | {b"grpc-timeout": b"1500m"}
    carried, carried_grpc = (budget(fields, policy, 15.0, None).carried for fields in (one, grpc))
    show("budget: no timeout header", lambda: budget(FIELDS, policy, 15.0, None))
    show("budget: recovered from the trace", lambda: budget(FIELDS, policy, 15.0, 3.0))
    show("budget: one header", lambda: budget(one, policy, 15.0, None))
    show("budget: two headers, one of them gRPC", lambda: budget(grpc, policy, 15.0, None))
    show("timeout_fields: none carried", lambda: timeout_fields((), 1.234, is_grpc=False))
    show("timeout_fields: one carried", lambda: timeout_fields(carried, 1.234, is_grpc=False))
    show("timeout_fields: gRPC", lambda: timeout_fields(carried_grpc, 1.234, is_grpc=True))
    show("grpc_timeout", lambda: grpc_timeout(1.234))
    show("with_baggage_deadline", lambda: with_baggage_deadline(b"user=1,deadline-ms=5", 1.234))


def show_callers() -> None:
    ids, callers = IdSource(), Callers()
    for _ in range(5000):
        callers.enter(ids.span_id(), ids.trace_id(), 5.0, 0.0)
    live, trace, span, ended = ids.span_id(), ids.trace_id(), ids.span_id(), ids.trace_id()
    entry = callers.enter(live, trace, 5.0, 0.0)

    def enter_and_leave() -> None:
        callers.enter(span, ended, 5.0, 0.0)
        callers.leave(span, 0.0)

    def attach_and_detach() -> None:
        callers.attach(entry, show)
        callers.detach(entry, show)

    def enter_and_bury() -> None:
        callers.enter(ids.span_id(), ended, 5.0, 0.0)
        callers.bury(span, 0.0, Reason.CALLER_GONE)

    show("enter + leave", enter_and_leave)
    show("find: our member", lambda: callers.find(live, None, trace, 0.0))
    show("find: our parent id", lambda: callers.find(None, live, trace, 0.0))
    show("find: the trace id", lambda: callers.find(None, PARENT, trace, 0.0))
    show("find: nothing", lambda: callers.find(None, PARENT, TRACE, 0.0))
    show("attach + detach", attach_and_detach)
    show("span_id + enter + bury of nothing, at capacity and one trace", enter_and_bury)


def show_admission() -> None:
    quantiles = Quantiles(0.0)
    admission = BudgetAdmission(AdmissionPolicy(mode=Mode.ENFORCE), 0.0)
    for n in range(1000):
        admission.record(n / 1000, 0.0)
    off = BudgetAdmission(AdmissionPolicy(), 0.0)
    show("Quantiles.record", lambda: quantiles.record(0.123, 0.0))
    show("should_refuse: enough budget", lambda: admission.should_refuse(0.7, 0.0))
    show("should_refuse: too little", lambda: admission.should_refuse(0.3, 0.0))
    show("should_refuse: off", lambda: off.should_refuse(0.3, 0.0))


def show_memory() -> None:
    for name, is_one_trace in (("a trace each", False), ("one trace for all", True)):
        tracemalloc.start()
        ids, callers = IdSource(), Callers()
        for number in range(65_536):
            trace_id = bytes(bytearray(TRACE)) if is_one_trace else ids.trace_id()
            callers.enter(ids.span_id(), trace_id, number + 0.5, 0.0)
        filled = tracemalloc.get_traced_memory()[0] / 2**20
        for number in range(60_000):
            trace_id = bytes(bytearray(TRACE)) if is_one_trace else ids.trace_id()
            callers.enter(ids.span_id(), trace_id, number + 0.5, 0.0)
        churned = tracemalloc.get_traced_memory()[0] / 2**20
        tracemalloc.stop()
        print(
            f"65,536 entries, {name}, ids included: {filled:.1f} MiB; after 60,000 evictions {churned:.1f} MiB"
        )


if __name__ == "__main__":
    show_tracecontext()
    show_deadline()
    show_callers()
    show_admission()
    show_memory()
