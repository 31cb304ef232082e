"""A breaker's state and its changes in words: the one source for log, API, commands, dashboard and spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sidecar.core.override import Order, Override
from sidecar.core.statechart import SHUT
from sidecar.core.transition import Cause, State, Transition, TransitionReason

_KINDS: Final = 3
"""Kinds of causes that are told one by one."""
_UNITS: Final = (("d", 86400.0), ("h", 3600.0), ("m", 60.0))


def told(
    state: State, ramp_share: float | None = None, *, is_probe_due: bool = False, is_by_hand: bool = False
) -> str:
    """The state with what it does not say by itself: `closed, ramping 35 %`, `open, probe due`."""
    if is_by_hand:
        return f"{state.value} by hand"
    if is_probe_due:
        return f"{state.value}, probe due"
    return state.value if ramp_share is None else f"{state.value}, ramping {round(ramp_share * 100)} %"


def why(history: Sequence[Transition], *, is_probe_due: bool = False) -> str:
    """Why a breaker is not closed: what opened it, and what its last probe showed. Empty if it is closed.

    Such as `open: 5 × connection_refused 10.0.0.7:8080; last probe: the same; probe due`.
    """
    if not history or history[-1].to_state not in SHUT:
        return ""
    outage = _outage(history)
    opened = outage[0]
    parts = [f"{history[-1].to_state.value}: {_opened(opened)}"]
    probes = [one for one in outage[1:] if one.to_state is State.OPEN]
    if probes:
        parts.append(f"last probe: {_probe(probes[-1], opened)}")
    if is_probe_due:
        parts.append("probe due")
    return "; ".join(parts)


def since(history: Sequence[Transition]) -> float | None:
    """When what it is in now began: of an outage its first opening, whatever probes have failed since. None before
    the first change."""
    return _outage(history)[0].at if history else None


def because(transition: Transition) -> str:
    """Why this change was made; empty where state and reason say all of it.

    Such as `5 × connection_refused 10.0.0.7:8080`, `probe failed: 503 10.0.0.7:8080`, `by ada@bastion for 30m`.
    """
    if transition.order is not None:
        return _ordered(transition.order)
    if transition.reason is TransitionReason.PEERS:
        return f"decided by {transition.decider}"
    if transition.to_state is State.OPEN:
        if transition.from_state is State.CLOSED:
            return _opened(transition)
        return f"probe failed: {_probe(transition, None)}".removesuffix(": failed")
    if transition.reason is TransitionReason.PROBE_SUCCEEDED and transition.causes:
        return f"probe succeeded: {_answer(transition.causes[-1])}"
    return ""


def held(state: State, order: Order, instant: Callable[[float], str]) -> str:
    """Who holds a breaker, since when and until when; `instant` tells a monotonic time as one of the day.

    Such as `forced_open: by ada@bastion since 2026-11-24T18:37:17Z until 2026-11-24T19:07:17Z`.
    """
    until = "until ended by hand" if order.until is None else f"until {instant(order.until)}"
    return f"{state.value}: by {_whom(order)} since {instant(order.since)} {until}"


def _ordered(order: Order) -> str:
    if order.action is not Override.AUTO:
        lasting = "until ended by hand" if order.until is None else f"for {_span(order.until - order.since)}"
        return f"by {_whom(order)} {lasting}"
    if order.until is None:
        return f"override ended by {_whom(order)}"
    return f"the time of the override by {_whom(order)} is over"


def _whom(order: Order) -> str:
    return order.by or "somebody unknown"


def _span(seconds: float) -> str:
    """As the configuration writes durations: `30m`, `90s`."""
    for unit, size in _UNITS:
        if seconds >= size and abs(seconds / size - round(seconds / size)) < 1e-6:
            return f"{round(seconds / size)}{unit}"
    return f"{round(seconds, 3):g}s"


def _outage(history: Sequence[Transition]) -> Sequence[Transition]:
    """The transitions since the breaker was last closed, as far as they are remembered."""
    first = len(history) - 1
    while first > 0 and history[first].from_state in SHUT:
        first -= 1
    return history[first:]


def _opened(opened: Transition) -> str:
    """What a trigger saw: the row, or the share of the window, and whose outcomes these were."""
    window, reason = opened.window, opened.reason
    if reason is TransitionReason.PEERS:
        return because(opened)
    causes = _causes(opened.causes)
    if reason is TransitionReason.FAILURE_RATE:
        return _in_all(f"{window.failed} of {window.total} failed", causes)
    if reason is TransitionReason.SLOW_CALL_RATE:
        return _in_all(f"{window.slow} of {window.total} slow", causes)
    if len(opened.causes) == 1 < window.consecutive_failures:  # an older record keeps the last one alone
        return f"{window.consecutive_failures} in a row, at last {causes.removeprefix('1 × ')}"
    return causes or reason.value


def _in_all(share: str, causes: str) -> str:
    return f"{share} ({causes})" if causes else share


def _probe(failed: Transition, opened: Transition | None) -> str:
    """What a probe showed; `opened`: what it may be the same as."""
    if failed.reason is TransitionReason.PROBE_TIMEOUT:
        return "no verdict within max_wait"
    if not failed.causes:
        return "failed"
    last = failed.causes[-1:]
    is_same = opened is not None and any(_kind(one) == _kind(last[0]) for one in opened.causes)
    return "the same" if is_same else _causes(last).removeprefix("1 × ")


def _kind(cause: Cause) -> tuple[str, str]:
    return cause.error_type, cause.endpoint


def _causes(causes: Sequence[Cause]) -> str:
    """Alike ones together, the most frequent first; three kinds at most."""
    counts: dict[tuple[str, str], int] = {}
    for cause in causes:
        kind = _kind(cause)
        counts[kind] = counts.get(kind, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    told_of = [
        f"{count} × {error_type or 'slow'}{endpoint and f' {endpoint}'}"
        for (error_type, endpoint), count in ordered[:_KINDS]
    ]
    if len(ordered) > _KINDS:
        told_of.append(f"{len(ordered) - _KINDS} other kinds")
    return ", ".join(told_of)


def _answer(cause: Cause) -> str:
    status = str(cause.status) if cause.status else ""
    return " ".join(part for part in (cause.error_type or status, cause.endpoint) if part)
