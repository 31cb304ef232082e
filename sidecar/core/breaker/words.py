"""A breaker's state in words, for people."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core.transition import Cause, State, Transition, TransitionReason

_SHUT = (State.OPEN, State.HALF_OPEN)


def told(state: State, ramp_share: float | None = None, *, is_probe_due: bool = False) -> str:
    """The state with what it does not say by itself: `closed, ramping 35 %`, `open, probe due`."""
    if is_probe_due:
        return f"{state.value}, probe due"
    return state.value if ramp_share is None else f"{state.value}, ramping {round(ramp_share * 100)} %"


def why(history: Sequence[Transition]) -> str:
    """Why a breaker is not closed: what opened it, and what its last probe showed. Empty if it is closed.

    Such as `open: 5 × connection_refused 10.0.0.7:8080; last probe: the same`.
    """
    if not history or history[-1].to_state not in _SHUT:
        return ""
    outage = _outage(history)
    opened = outage[0]
    cause = _causes(opened.causes) or opened.reason.value
    parts = [f"{history[-1].to_state.value}: {cause}"]
    probes = [one for one in outage[1:] if one.to_state is State.OPEN]
    if probes:
        parts.append(f"last probe: {_probe(probes[-1], opened)}")
    return "; ".join(parts)


def _outage(history: Sequence[Transition]) -> Sequence[Transition]:
    """The transitions since the breaker was last closed, as far as they are remembered."""
    first = len(history) - 1
    while first > 0 and history[first].from_state in _SHUT:
        first -= 1
    return history[first:]


def _probe(failed: Transition, opened: Transition) -> str:
    if failed.reason is TransitionReason.PROBE_TIMEOUT:
        return "no verdict within max_wait"
    if not failed.causes:
        return "failed"
    last = failed.causes[-1:]
    is_same = any(_kind(one) == _kind(last[0]) for one in opened.causes)
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
        f"{count} × {' '.join(part for part in kind if part) or 'slow'}" for kind, count in ordered[:3]
    ]
    if len(ordered) > 3:
        told_of.append(f"{len(ordered) - 3} other kinds")
    return ", ".join(told_of)
