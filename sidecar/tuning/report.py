"""What is found out, for people and for programs; and the policy to try, as the file would say it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from sidecar.config.schema.units import format_duration, format_share
from sidecar.config.yaml.nodes import resolve_plain
from sidecar.core.snapshot import BreakerPolicy
from sidecar.tuning.choice import LEAST_OUTAGES
from sidecar.tuning.replay import Figures
from sidecar.tuning.tune import Both, Spell, Tuned

KEYS: Final = {
    "consecutive_failures": "consecutive_failures",
    "failure_rate_threshold": "failure_rate_threshold",
    "slow_call_seconds": "slow_call_duration",
    "slow_call_rate_threshold": "slow_call_rate_threshold",
    "open_seconds": "open_for",
    "max_open_seconds": "max_open_for",
}
"""Of the file, by field, in the order in which they are written."""
_DURATIONS: Final = frozenset({"slow_call_seconds", "open_seconds", "max_open_seconds"})
_SHARES: Final = frozenset({"failure_rate_threshold", "slow_call_rate_threshold"})
_SHOWN_OUTAGES: Final = 20
KEEP: Final = "keep what you have"
NOT_KNOWN: Final = (
    "what a policy that admits more would do to the upstream: it is taken to answer as it did",
    "how much time each caller had: every request is taken for one that may probe",
)


def candidate(tuned: Tuned) -> str:
    """YAML of the policy to try beside the present one; empty where nothing is recommended."""
    changes = tuned.changes
    if not changes:
        return ""
    told = ", ".join(f"{KEYS[name]}: {_value(name, changes[name])}" for name in KEYS if name in changes)
    return f"routes:\n- name: {_name(tuned.route)}\n  circuit_breaker:\n    candidate: {{{told}}}\n"


def as_data(tuned: Tuned, dropped: int) -> dict[str, Any]:
    """For programs."""
    times = tuned.times
    return {
        "route": tuned.route,
        "calls": tuned.calls,
        "seconds": round(tuned.seconds, 3),
        "refused": tuned.refused,
        "dropped": dropped,
        "outages": [_spell(one) for one in tuned.spells],
        "times": {
            "calls": times.count,
            "quantiles": {f"p{share * 100:g}": round(found, 6) for share, found in times.quantiles.items()},
            "longest": round(times.longest, 6),
            "slow_call_duration": _duration(times.slow_call_seconds),
            "timeouts.attempt": _duration(times.attempt_seconds),
            "longer_than_that": times.cut,
        },
        "present": _policy(tuned.grid.present) | {"in_outages": _both(tuned.present)},
        "tried": None if tuned.tried is None else {"in_outages": _both(tuned.tried)},
        "by_outage": [
            {"present": _both(one), "tried": None if other is None else _both(other)}
            for one, other in tuned.by_outage
        ],
        "is_recommended": tuned.choice.point is not None,
        "reason": tuned.choice.reason,
        "candidate": {KEYS[name]: _value(name, value) for name, value in tuned.changes.items()} or None,
        "yaml": candidate(tuned) or None,
        "not_known": list(NOT_KNOWN),
    }


def as_text(tuned: Tuned, dropped: int) -> str:
    """For people."""
    return (
        "\n".join([*_head(tuned, dropped), "", *_times(tuned), "", *_outages(tuned), "", *_choice(tuned)])
        + "\n"
    )


def _head(tuned: Tuned, dropped: int) -> Iterator[str]:
    before = f", {dropped} before them are not kept any more" if dropped else ""
    yield f"{tuned.route}: {tuned.calls} calls in {_span(tuned.seconds)}{before}"
    if tuned.refused:
        yield (
            f"{tuned.refused} of them were refused, so nobody knows how they would have ended: figures go from"
            " all of these failed to all of them good"
        )


def _times(tuned: Tuned) -> Iterator[str]:
    times = tuned.times
    if times.slow_call_seconds is None or times.attempt_seconds is None:
        yield f"{times.count} good calls outside outages: too few to say what is slow"
        return
    known = ", ".join(f"p{share * 100:g} {_short(found)}" for share, found in times.quantiles.items())
    yield f"{times.count} good calls outside outages: {known}, the longest {_short(times.longest)}"
    slow, cut = format_duration(times.slow_call_seconds), format_duration(times.attempt_seconds)
    yield f"  slow_call_duration: {slow}   three times the p95"
    yield f"  timeouts.attempt: {cut}   longer: {times.cut} of them; what a timeout has cut is not among them"


def _outages(tuned: Tuned) -> Iterator[str]:
    if not tuned.spells:
        yield "no outage"
        return
    yield f"{len(tuned.spells)} outage{'s' if len(tuned.spells) > 1 else ''}:"
    for number, one in enumerate(tuned.spells[:_SHOWN_OUTAGES], 1):
        yield (
            f"  {number}  {_moment(one.outage.began)}  {_span(one.outage.seconds)} of {one.upstream}:"
            f" {one.calls} calls, {one.failed} failed, {one.refused} refused"
        )
    if len(tuned.spells) > _SHOWN_OUTAGES:
        yield f"  … and {len(tuned.spells) - _SHOWN_OUTAGES} more"


def _choice(tuned: Tuned) -> Iterator[str]:
    choice = tuned.choice
    if tuned.spells:
        yield from _table(tuned)
        yield ""
    if choice.point is None:
        yield f"{KEEP}: {choice.reason}"
        if len(tuned.spells) < LEAST_OUTAGES:
            yield "  what the times above allow can be set all the same"
        elif tuned.refused:
            yield "  with `mode: metrics_only` for a while every call would have an outcome"
    else:
        yield f"try this beside the present policy: {choice.reason}"
        yield ""
        yield candidate(tuned).rstrip()
        yield ""
        yield "it acts on nothing; /breakers and the dashboard show what it would have done. Then move its keys up."
    yield "not in the data:"
    yield from (f"  {one}" for one in NOT_KNOWN)


def _table(tuned: Tuned) -> Iterator[str]:
    rows = [("in all outages", "good refused", "failures let through", "sent to the upstream")]
    failed, refused = (sum(getattr(one, name) for one in tuned.spells) for name in ("failed", "refused"))
    sent = sum(one.calls for one in tuned.spells) - refused
    rows.append(("what there was", _range(0, refused), f"{failed}", f"{sent}"))
    rows.append(("the present policy", *_cells(tuned.present)))
    if tuned.tried is not None and tuned.choice.nearest is not None:
        which = "the policy to try" if tuned.choice.point is not None else "the best other one"
        rows.append((which, *_cells(tuned.tried)))
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    for row in rows:
        first, *rest = (
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *rest])


def _cells(both: Both) -> tuple[str, str, str]:
    return (
        _range(both[0].good_refused, both[1].good_refused),
        _range(both[0].failed, both[1].failed),
        _range(both[0].sent, both[1].sent),
    )


def _range(one: int, other: int) -> str:
    low, high = sorted((one, other))
    return f"{low}" if low == high else f"{low} to {high}"


def _spell(one: Spell) -> dict[str, Any]:
    return {
        "upstream": one.upstream,
        "began": _moment(one.outage.began),
        "seconds": round(one.outage.seconds, 3),
        "calls": one.calls,
        "failed": one.failed,
        "refused": one.refused,
    }


def _both(both: Both) -> dict[str, dict[str, int]]:
    return {"all_failed": _figures(both[0]), "all_good": _figures(both[1])}


def _figures(figures: Figures) -> dict[str, int]:
    return asdict(figures)


def _policy(policy: BreakerPolicy) -> dict[str, Any]:
    return {key: _value(name, getattr(policy, name)) for name, key in KEYS.items()}


def _value(name: str, value: Any) -> Any:
    """As the file would say it."""
    if value is None:
        return None
    if name in _DURATIONS:
        return format_duration(value)
    return format_share(value) if name in _SHARES else value


def _duration(seconds: float | None) -> str | None:
    return None if seconds is None else format_duration(seconds)


def _name(text: str) -> str:
    """Of a route, in YAML: names are words of few characters, and one that would not be read as text wants quotes."""
    return text if resolve_plain(text) == text else f'"{text}"'


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _span(seconds: float) -> str:
    return format_duration(float(round(seconds)) or 1.0)


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
