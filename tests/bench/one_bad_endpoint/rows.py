"""The situations: which endpoints are bad, and how. Every number of them is here."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

USUAL_SECONDS = 0.02
"""The median of a good answer; half of all lie within a fifth of it."""
BEGINS = 5.0
"""Until then all endpoints are well."""


@dataclass(frozen=True)
class Plan:
    """What becomes of one request: after so many seconds a status; 0: a refused connection, or (`inf`) nothing."""

    seconds: float
    status: int = 200


def good(rng: random.Random, _now: float) -> Plan:
    return Plan(USUAL_SECONDS * rng.lognormvariate(0.0, 0.3))


def fails(_rng: random.Random, _now: float) -> Plan:
    return Plan(0.002, 500)


def _hangs(_rng: random.Random, _now: float) -> Plan:
    return Plan(inf)


def _is_slow(rng: random.Random, now: float) -> Plan:
    return Plan(20.0 * good(rng, now).seconds)


def _refuses(_rng: random.Random, _now: float) -> Plan:
    return Plan(0.0005, 0)


def _flaps(rng: random.Random, now: float) -> Plan:
    return good(rng, now) if int((now - BEGINS) / 5.0) % 2 else fails(rng, now)


def _fails_often(rng: random.Random, now: float) -> Plan:
    return Plan(good(rng, now).seconds, 500 if rng.random() < 0.6 else 200)


Answer = Callable[[random.Random, float], Plan]


@dataclass(frozen=True)
class Row:
    name: str
    count: int
    """Endpoints in all."""
    bad: int
    answer: Answer
    """Of the bad ones, from `BEGINS` on."""
    is_upstreams: bool = False
    """There is no good endpoint: the breaker is to open."""

    def plan(self, number: int, rng: random.Random, now: float) -> Plan:
        """For a request to the endpoint of this number."""
        is_bad = number < self.bad and now >= BEGINS
        return self.answer(rng, now) if is_bad else good(rng, now)


def rows_with(text: str) -> list[Row]:
    """Those whose name contains it.

    Raises:
        SystemExit: there is none.
    """
    found = [row for row in ROWS if text in row.name]
    if not found:
        raise SystemExit(f"no row has {text!r} in its name: {', '.join(row.name for row in ROWS)}")
    return found


ROWS = (
    Row("one of ten answers 500 at once", 10, 1, fails),
    Row("one of ten hangs", 10, 1, _hangs),
    Row("one of ten is 20 times slower", 10, 1, _is_slow),
    Row("one of ten refuses", 10, 1, _refuses),
    Row("one of ten flaps each 5 s", 10, 1, _flaps),
    Row("two of ten refuse", 10, 2, _refuses),
    Row("three of ten refuse", 10, 3, _refuses),
    Row("two of three answer 500", 3, 2, fails),
    Row("two of three refuse", 3, 2, _refuses),
    Row("three of four refuse", 4, 3, _refuses),
    Row("four of six refuse", 6, 4, _refuses),
    Row("one of two fails 60 % of its calls", 2, 1, _fails_often),
    Row("all of ten refuse", 10, 10, _refuses, True),
    Row("all of ten answer 500", 10, 10, fails, True),
)
