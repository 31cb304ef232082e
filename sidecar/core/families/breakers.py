"""What circuit breakers did, and what other policies would have done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sidecar.core.families.family import Attributes, Family, MetricKind, Places, Point, breaker_attributes
from sidecar.core.numbers import RouteNumbers
from sidecar.core.sources import Sources
from sidecar.core.transition import State


def _transitions(route: RouteNumbers, _: Places) -> Iterator[Point]:
    for (upstream, before, after, reason), count in list(route.transitions.items()):
        yield (
            (
                ("sidecar.route", route.name or ""),
                ("sidecar.upstream", upstream),
                ("sidecar.circuit_breaker.state.from", before.value),
                ("sidecar.circuit_breaker.state.to", after.value),
                ("sidecar.circuit_breaker.reason", reason.value),
            ),
            count,
        )


def _states(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        name = breaker_attributes(breaker.route, breaker.upstream)
        for state in State:
            yield (*name, ("sidecar.circuit_breaker.state", state.value)), int(breaker.state is state)


def _probes_due(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        yield breaker_attributes(breaker.route, breaker.upstream), int(breaker.is_probe_due)


def _overridden(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        yield breaker_attributes(breaker.route, breaker.upstream), int(breaker.is_overridden)


def _opened(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        yield breaker_attributes(breaker.route, breaker.upstream), breaker.opened_at


def _calls(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        name = breaker_attributes(breaker.route, breaker.upstream)
        outcomes = (
            ("success", breaker.successful),
            ("failure", breaker.failed),
            ("ignored", breaker.ignored),
        )
        for outcome, count in outcomes:
            yield (*name, ("sidecar.circuit_breaker.outcome", outcome)), count


def _slow(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        yield breaker_attributes(breaker.route, breaker.upstream), breaker.slow


def _timed_out(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        yield breaker_attributes(breaker.route, breaker.upstream), breaker.timed_out


def _candidates(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        for state in State if breaker.candidate is not None else ():
            name = (
                *breaker_attributes(breaker.route, breaker.upstream),
                ("sidecar.circuit_breaker.state", state.value),
            )
            yield name, int(breaker.candidate is state)


def _would_have_rejected(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        for (policy, outcome), count in breaker.would_have_rejected.items():
            which: Attributes = (
                ("sidecar.circuit_breaker.policy", policy), ("sidecar.circuit_breaker.outcome", outcome),
            )  # fmt: skip
            yield (*breaker_attributes(breaker.route, breaker.upstream), *which), count


def _not_permitted(sources: Sources) -> Iterator[Point]:
    for breaker in sources.breakers:
        yield breaker_attributes(breaker.route, breaker.upstream), breaker.rejected


BREAKERS: Final[tuple[Family, ...]] = (
    Family(
        "sidecar.circuit_breaker.state",
        "{breaker}",
        "1 for the state the circuit breaker is in, 0 for each other one.",
        MetricKind.UP_DOWN,
        None,
        _states,
    ),
    Family(
        "sidecar.circuit_breaker.probe_due",
        "{breaker}",
        "1 while the circuit breaker is open, its wait is over and no request has come to be the probe.",
        MetricKind.UP_DOWN,
        None,
        _probes_due,
    ),
    Family(
        "sidecar.circuit_breaker.overridden",
        "{breaker}",
        "1 while an operator holds the circuit breaker, open or closed.",
        MetricKind.UP_DOWN,
        None,
        _overridden,
    ),
    Family(
        "sidecar.circuit_breaker.opened_timestamp",
        "s",
        "When the circuit breaker last opened, in seconds since 1970; 0 if it has not since the process began.",
        MetricKind.GAUGE,
        None,
        _opened,
    ),
    Family(
        "sidecar.circuit_breaker.transitions",
        "{transition}",
        "State changes of circuit breakers.",
        MetricKind.COUNTER,
        _transitions,
    ),
    Family(
        "sidecar.circuit_breaker.calls",
        "{call}",
        "Attempts judged by a circuit breaker, by outcome.",
        MetricKind.COUNTER,
        None,
        _calls,
    ),
    Family(
        "sidecar.circuit_breaker.not_permitted",
        "{request}",
        "Requests that a circuit breaker did not let through.",
        MetricKind.COUNTER,
        None,
        _not_permitted,
    ),
    Family(
        "sidecar.circuit_breaker.slow",
        "{call}",
        "Attempts that took longer than `slow_call_duration`, whatever came of them.",
        MetricKind.COUNTER,
        None,
        _slow,
    ),
    Family(
        "sidecar.circuit_breaker.timed_out",
        "{call}",
        "Attempts that timed out, whether or not that counts as a failure.",
        MetricKind.COUNTER,
        None,
        _timed_out,
    ),
    Family(
        "sidecar.circuit_breaker.candidate_state",
        "{breaker}",
        "1 for the state the candidate of a circuit breaker is in, 0 for each other one.",
        MetricKind.UP_DOWN,
        None,
        _candidates,
    ),
    Family(
        "sidecar.circuit_breaker.would_have_rejected",
        "{request}",
        "Requests that a policy which only counts would have refused, by what came of them.",
        MetricKind.COUNTER,
        None,
        _would_have_rejected,
    ),
)
