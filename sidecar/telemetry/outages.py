"""Shapes outages of breakers: each is one trace, which can be read while it lasts. Runs in the exporting thread.

    circuit_breaker.opened ROUTE     from the first counted cause to the opening; sent at once, the root
    ├─ circuit_breaker.wait          sent when it ends
    ├─ circuit_breaker.probe         one for each probe of which something was heard
    └─ circuit_breaker.outage ROUTE  all of it, sent at its end, with the numbers

Every span carries route, upstream, `sidecar.outage.id` and status ERROR, so that each alone satisfies a policy of
tail sampling. Ids follow from the outage's beginning, so that whoever links to it needs no table. A trace of an hour
or of 200 spans is long enough: the outage goes on in another one, linked both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sidecar.core.breaker.words import because
from sidecar.core.transition import State, Transition, TransitionReason
from sidecar.telemetry import wire
from sidecar.telemetry.attributes import cause_event, cause_link, ns, of_breaker, of_window, result_of
from sidecar.telemetry.spans import TransitionIds

MAX_OUTAGES = 8192
"""At once; the one that began first gives way to another, and has no bar at its end."""
MAX_CAUSES = 32
MAX_OVERRIDES = 32
"""Of one trace."""
LONGEST_SECONDS = 3600.0
"""Of one trace."""
MAX_SPANS = 200
"""Of one trace."""
JOINED_SECONDS = 600.0
"""How much of waits of `max_open_for` one span may cover."""

_IN_OUTAGE = (State.OPEN, State.HALF_OPEN, State.FORCED_OPEN)
_FLAGS = wire.flags(is_remote=False)

Breaker = tuple[str, str]
"""Route and upstream."""


class Wait(NamedTuple):
    """Waits in a row that are shown as one. Monotonic seconds."""

    since: float
    until: float
    waits: int
    planned_seconds: float
    """Of the last one."""


class Course:
    """One outage, as far as it has come."""

    __slots__ = (
        "began", "last", "more_overrides", "overrides", "part", "part_began", "probed", "refused_before", "spans",
        "wait",
    )  # fmt: skip

    def __init__(self, first: Transition, began: float) -> None:
        self.began = began
        self.last = first
        self.refused_before = first.rejected
        self.probed = 0
        self.part = 1
        self.part_began = first.at
        self.spans = 0
        """Of this part."""
        self.wait: Wait | None = None
        """Waits that have ended and are not shown yet."""
        self.overrides: list[Transition] = []
        self.more_overrides = 0


class Outages:
    """All outages that are going on. Hears of every transition, in order."""

    def __init__(self, ids: TransitionIds) -> None:
        self._ids = ids
        self._courses: dict[Breaker, Course] = {}

    def told(self, transition: Transition, offset_ns: int) -> list[bytes]:
        """The spans that a change within an outage brings about; encoded, `offset_ns` as everywhere."""
        breaker = transition.route, transition.upstream
        began = transition.outage
        course = self._courses.get(breaker)
        spans: list[bytes] = []
        if course is not None and course.began != began:  # a reload has made another breaker of that name
            spans.append(self._whole(course, transition.at, None, offset_ns))
            del self._courses[breaker]
            course = None
        if began is None:
            return spans
        if course is None:
            course = self._begin(breaker, Course(transition, began))
            if began == transition.at:
                spans.append(self._opened(course, offset_ns))
        else:
            spans += self._go_on(course, transition, offset_ns)
        if transition.to_state not in _IN_OUTAGE:
            spans += self._end(breaker, course, transition, offset_ns)
        elif course.spans >= MAX_SPANS or transition.at - course.part_began >= LONGEST_SECONDS:
            spans += self._turn_page(course, transition.at, offset_ns)
        return spans

    def end_all(self, now: float, rejected: Mapping[Breaker, int], offset_ns: int) -> list[bytes]:
        """The process ends: what is shown of the outages that go on. `rejected`: as `Transition.rejected`, now."""
        spans: list[bytes] = []
        for breaker, course in self._courses.items():
            if course.last.to_state is State.OPEN:
                course.wait = _joined(course, course.last.at, now)
            spans += self._shown_wait(course, offset_ns)
            spans.append(self._whole(course, now, rejected.get(breaker), offset_ns))
        self._courses.clear()
        return spans

    def _begin(self, breaker: Breaker, course: Course) -> Course:
        if len(self._courses) >= MAX_OUTAGES:
            del self._courses[next(iter(self._courses))]
        self._courses[breaker] = course
        return course

    def _go_on(self, course: Course, transition: Transition, offset_ns: int) -> Iterator[bytes]:
        """What ends with this change: a wait, or probes."""
        last, now = course.last, transition.at
        if last.to_state is State.OPEN:
            course.wait = _joined(course, last.at, now)
            if not last.is_longest_wait or course.wait.until - course.wait.since >= JOINED_SECONDS:
                yield from self._shown_wait(course, offset_ns)
        elif last.to_state is State.HALF_OPEN:
            if transition.to_state is State.OPEN and not transition.is_longest_wait:
                yield from self._shown_wait(course, offset_ns)
            yield from self._probes(course, transition, offset_ns)
        if is_by_hand(transition):
            yield from self._shown_wait(course, offset_ns)
            if len(course.overrides) < MAX_OVERRIDES:
                course.overrides.append(transition)
            else:
                course.more_overrides += 1
        course.last = transition

    def _end(
        self, breaker: Breaker, course: Course, transition: Transition, offset_ns: int
    ) -> Iterator[bytes]:
        yield from self._shown_wait(course, offset_ns)
        yield self._whole(course, transition.at, transition.rejected, offset_ns, transition)
        del self._courses[breaker]

    def _turn_page(self, course: Course, now: float, offset_ns: int) -> Iterator[bytes]:
        """Go on in another trace."""
        yield from self._shown_wait(course, offset_ns)
        following = wire.link(*self._id(course, "opened", course.part + 1), is_sampled=True)
        yield self._whole(course, now, course.last.rejected, offset_ns, more=(following,))
        before = wire.link(*self._id(course, "opened"), is_sampled=True)
        course.part += 1
        course.part_began, course.spans = now, 0
        course.overrides, course.more_overrides = [], 0
        yield self._span(
            course, "opened", f"circuit_breaker.opened {course.last.route}", now, now, offset_ns, (before,)
        )

    # Spans

    def _opened(self, course: Course, offset_ns: int) -> bytes:
        """The root."""
        opened = course.last
        causes = opened.causes[-MAX_CAUSES:]
        since = min((cause.at for cause in causes if cause.at > 0.0), default=opened.at)
        why = because(opened)
        parts = [*of_breaker(opened), *of_window(opened)]
        for cause in causes:
            parts += (cause_link(cause), cause_event(cause, cause.at or opened.at, offset_ns))
        if more := _counted(opened) - len(causes):
            parts.append(wire.number("sidecar.outage.more_causes", more))
        name = f"circuit_breaker.opened {opened.route}"
        return self._span(course, "opened", name, since, opened.at, offset_ns, parts, why)

    def _shown_wait(self, course: Course, offset_ns: int) -> Iterator[bytes]:
        wait, course.wait = course.wait, None
        if wait is not None:
            parts = (
                wire.number("sidecar.circuit_breaker.wait_ms", round(wait.planned_seconds * 1000)),
                wire.number("sidecar.outage.waits", wait.waits),
            )
            what = f"wait {wait.since!r}"
            yield self._span(course, what, "circuit_breaker.wait", wait.since, wait.until, offset_ns, parts)

    def _probes(self, course: Course, ended: Transition, offset_ns: int) -> Iterator[bytes]:
        """Of one half-open period, which `ended` has ended; one at least, for a verdict that nobody brought."""
        since = course.last.at
        for number, cause in enumerate(ended.causes[-MAX_CAUSES:] or (None,)):
            parts = [wire.text("sidecar.circuit_breaker.reason", ended.reason.value.encode())]
            until, why = ended.at, because(ended)
            if cause is not None:
                parts += (*result_of(cause), cause_link(cause))
                until, why = cause.at or ended.at, cause.error_type or str(cause.status or "")
            course.probed += 1
            what = f"probe {since!r} {number}"
            yield self._span(course, what, "circuit_breaker.probe", since, until, offset_ns, parts, why)

    def _whole(
        self,
        course: Course,
        until: float,
        rejected: int | None,
        offset_ns: int,
        closed: Transition | None = None,
        more: Sequence[bytes] = (),
    ) -> bytes:
        """The bar over all of it. `rejected` as `Transition.rejected` by now; None: nobody knows."""
        parts = [
            wire.flag("sidecar.outage.ended", value=closed is not None),
            wire.number("sidecar.outage.probed", course.probed),
            *more,
        ]
        if rejected is not None:
            parts.append(wire.number("sidecar.outage.refused", max(0, rejected - course.refused_before)))
        if closed is not None:
            parts.append(wire.text("sidecar.circuit_breaker.state.to", closed.to_state.value.encode()))
            parts.append(wire.text("sidecar.circuit_breaker.reason", closed.reason.value.encode()))
        for override in course.overrides:
            at = ns(override.at, offset_ns)
            parts.append(wire.event("circuit_breaker.override", at, of_breaker(override)))
        if course.more_overrides:
            parts.append(wire.number("sidecar.outage.more_overrides", course.more_overrides))
        why = "" if closed is None else because(closed)
        name = f"circuit_breaker.outage {course.last.route}"
        return self._span(course, "outage", name, course.part_began, until, offset_ns, parts, why)

    def _span(
        self,
        course: Course,
        what: str,
        name: str,
        since: float,
        until: float,
        offset_ns: int,
        parts: Sequence[bytes],
        why: str = "",
    ) -> bytes:
        route, upstream = course.last.route, course.last.upstream
        course.spans += 1
        trace_id, span_id = self._id(course, what)
        parent_id = b"" if what == "opened" else self._id(course, "opened")[1]
        fields = [
            _FLAGS,
            wire.name_and_kind(name, wire.INTERNAL),
            wire.status(wire.ERROR, why.encode("utf-8", "replace")),
            wire.text(
                "sidecar.outage.id", self._ids.of_outage(route, upstream, course.began)[0].hex().encode()
            ),
            *parts,
        ]
        if what != "opened" or course.part > 1:  # the first root has these among its own
            fields += (
                wire.text("sidecar.circuit_breaker.name", f"{route}/{upstream}".encode()),
                wire.text("sidecar.route", route.encode()),
                wire.text("sidecar.upstream", upstream.encode()),
            )
        times = ns(since, offset_ns), ns(max(since, until), offset_ns)
        return wire.span(trace_id, span_id, parent_id, *times, fields)

    def _id(self, course: Course, what: str, part: int | None = None) -> tuple[bytes, bytes]:
        last = course.last
        return self._ids.of_outage(last.route, last.upstream, course.began, what, part or course.part)


def _joined(course: Course, since: float, until: float) -> Wait:
    before, planned = course.wait, course.last.wait_seconds or 0.0
    if before is None:
        return Wait(since, until, 1, planned)
    return Wait(before.since, until, before.waits + 1, planned)


def _counted(opened: Transition) -> int:
    """How many causes the trigger counted."""
    window = opened.window
    if opened.reason is TransitionReason.FAILURE_RATE:
        return max(window.failed + window.silent, len(opened.causes))
    if opened.reason is TransitionReason.SLOW_CALL_RATE:
        return max(window.slow, len(opened.causes))
    if opened.reason is TransitionReason.CONSECUTIVE_FAILURES:
        return max(window.consecutive_failures, len(opened.causes))
    return len(opened.causes)


def is_by_hand(transition: Transition) -> bool:
    """An operator or a configuration has made it."""
    return transition.reason in (TransitionReason.FORCED, TransitionReason.RELOAD)
