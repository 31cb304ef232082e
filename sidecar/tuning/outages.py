"""When the upstream was ill, by what was seen alone. Outages, and not calls, are the sample: the calls of one outage
have one cause. Pure.

Time is divided into pieces of some ten calls each. A piece is ill with three bad calls and a tenth of all: failed,
refused by the breaker, or ten times as long as half of the good ones take. Ill pieces with less than `QUIET_SECONDS`
between them are one outage, as of an upstream that comes and goes; and what happens until `TAIL_SECONDS` after it
belongs to it, since that is how long a breaker may take to find out that it is over."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.outcome import Verdict
from sidecar.tuning.quantiles import LEAST_SECONDS, median
from sidecar.tuning.seen import Call

QUIET_SECONDS: Final = 30.0
TAIL_SECONDS: Final = 60.0
LEAST_BAD: Final = 5
"""Calls of an outage."""
_PIECE_CALLS: Final = 10
_LEAST_PIECE, _MOST_PIECE = 1.0, 60.0
_ILL_CALLS: Final = 3
_ILL_SHARE: Final = 0.1
SLOW_TIMES: Final = 10.0
"""The median of the good ones."""


@dataclass(frozen=True, slots=True)
class Outage:
    """Seconds since the epoch."""

    began: float
    ended: float
    until: float
    """Until when what happens belongs to it."""

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def find_outages(calls: Sequence[Call]) -> list[Outage]:
    """All of them, in the order of time; `calls` are in it, too."""
    if not calls:
        return []
    usual = median([one.whole_seconds for one in calls if one.is_good])
    slow = None if usual is None else max(SLOW_TIMES * usual, LEAST_SECONDS)
    piece = _piece_seconds(calls)
    pieces: dict[int, list[int]] = {}
    begin = calls[0].at
    for call in calls:
        of_piece = pieces.setdefault(int((call.at - begin) / piece), [0, 0])
        of_piece[0] += 1
        of_piece[1] += is_bad(call, slow)
    spans: list[list[float]] = []
    for number, (count, bad) in sorted(pieces.items()):
        if bad < _ILL_CALLS or bad < _ILL_SHARE * count:
            continue
        began, ended = begin + number * piece, begin + (number + 1) * piece
        if spans and began - spans[-1][1] < QUIET_SECONDS:
            spans[-1][1], spans[-1][2] = ended, spans[-1][2] + bad
        else:
            spans.append([began, ended, bad])
    spans = [one for one in spans if one[2] >= LEAST_BAD]
    following = [*(one[0] for one in spans[1:]), inf][: len(spans)]
    return [
        Outage(began, ended, min(ended + TAIL_SECONDS, after))
        for (began, ended, _), after in zip(spans, following, strict=True)
    ]


def is_bad(call: Call, slow_seconds: float | None) -> bool:
    """Whether it speaks for an outage."""
    if call.is_refused or call.is_failure or call.verdict is Verdict.SILENCE:
        return True
    return slow_seconds is not None and call.whole_seconds >= slow_seconds


def _piece_seconds(calls: Sequence[Call]) -> float:
    seconds = max(calls[-1].at - calls[0].at, 1.0)
    return min(max(_PIECE_CALLS * seconds / len(calls), _LEAST_PIECE), _MOST_PIECE)
