"""What was seen of a route: one `Call` for each attempt and for each request that its breaker refused. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.errors import Reason
from sidecar.core.outcome import Verdict
from sidecar.core.transition import State

MOST_CALLS: Final = 262_144
"""That are looked at, the last ones: four full rings."""

_BAD: Final = frozenset({Verdict.FAILURE, Verdict.RATE_ONLY_FAILURE})


class CannotTune(Exception):
    """The data do not allow it; the text says why, and what to do."""


@contextmanager
def as_written() -> Iterator[None]:
    """Around whatever reads what may come from another version, or from a hand.

    Raises:
        CannotTune: it is not what this version writes.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CannotTune(f"what was seen is not written as this version reads it ({error!r:.300})") from error


MOST_NUMBER: Final = 1e11
"""Milliseconds of a call, or seconds since the epoch: of what is more, dates and sums cannot be told."""


def number(value: object) -> float:
    """A time of a call. Raises: ValueError, TypeError."""
    if type(value) not in (int, float) or not 0 <= value <= MOST_NUMBER:  # type: ignore[operator]
        raise ValueError(f"a time that is not 0 to {MOST_NUMBER:g}")
    return float(value)  # type: ignore[arg-type]


def name(value: object) -> str:
    """Of an upstream or an endpoint. Raises: ValueError."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("a name that is no text, or not printable")
    return value


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt; or a request that was refused, which has neither verdict nor time."""

    at: float
    """When it was sent, in seconds since the epoch."""
    upstream: str
    endpoint: str = ""
    attempt: int = 0
    """How many its request had before it."""
    head_seconds: float | None = None
    whole_seconds: float = 0.0
    status: int = 0
    verdict: Verdict | None = None
    """None: the breaker refused it, so nobody knows how it would have ended."""
    state: State = State.CLOSED
    reason: Reason | None = None
    request: int = 0
    """The same number for all attempts of one request."""

    @property
    def is_refused(self) -> bool:
        return self.verdict is None

    @property
    def is_good(self) -> bool:
        """It had a whole answer that speaks for its upstream."""
        return self.verdict is Verdict.SUCCESS and self.reason is None

    @property
    def is_late_failure(self) -> bool:
        """Its answer broke after its breaker had counted it as good."""
        return self.verdict is Verdict.SUCCESS and self.reason is not None

    @property
    def is_failure(self) -> bool:
        return self.verdict in _BAD or self.is_late_failure


def numbered(calls: Iterable[Call]) -> list[Call]:
    """The same, in the order of time, with a number for each request. They come in the order in which requests ended,
    the attempts of each together."""
    found: list[Call] = []
    request = 0
    for call in calls:
        if call.is_refused or call.attempt == 0:
            request += 1
        found.append(replace(call, request=request))
    return sorted(found, key=lambda one: one.at)


def by_upstream(calls: Sequence[Call]) -> dict[str, list[Call]]:
    """Each breaker has its own."""
    lines: dict[str, list[Call]] = {}
    for call in calls:
        lines.setdefault(call.upstream, []).append(call)
    return lines
