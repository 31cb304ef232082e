"""The table of what was seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import inf
from statistics import median

from tests.bench.hard_cases.situations import Result, Situation


@dataclass(frozen=True)
class Row:
    situation: Situation
    breaker: str
    results: list[Result]

    @cached_property
    def wrong(self) -> int:
        return sum(not self.situation.is_right(result) for result in self.results)

    @property
    def is_right(self) -> bool:
        return not self.wrong

    def cells(self) -> list[str]:
        verdict = "yes" if self.is_right else f"no ({self.wrong} of {len(self.results)})"
        return [
            verdict,
            f"{self._median(lambda r: r.openings):.0f}",
            seconds(self._median(lambda r: r.opened_after)),
            f"{self._median(lambda r: r.lost):.0f}",
            f"{self._median(lambda r: r.wrongly_refused):.0f}",
            seconds(self._median(lambda r: r.closed_after)),
        ]

    def _median(self, of: Callable[[Result], float]) -> float:
        return median(of(result) for result in self.results)


def seconds(value: float) -> str:
    return "never" if value == inf else f"{value:.1f} s"


def plain(row: Row) -> str:
    right, openings, opened, lost, refused, closed = row.cells()
    return (
        f"{row.situation.name:56.56}{row.breaker:14}{right:14}{openings:>4} openings, open after {opened:>8},"
        f" lost {lost:>6}, wrongly refused {refused:>6}, closed after {closed:>8}"
    )


def markdown(rows: list[Row]) -> str:
    """A line for each situation, a column for each breaker; what is wrong is bold."""
    breakers = list(dict.fromkeys(row.breaker for row in rows))
    lines = [
        "| situation | wanted | " + " | ".join(breakers) + " |",
        "| --- | --- |" + " --- |" * len(breakers),
    ]
    by_situation: dict[str, list[Row]] = {}
    for row in rows:
        by_situation.setdefault(row.situation.name, []).append(row)
    for name, alike in by_situation.items():
        cells = [_cell(row) for row in alike]
        lines.append("| " + " | ".join([name, alike[0].situation.wanted, *cells]) + " |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    _, openings, opened, lost, refused, closed = row.cells()
    text = "never" if openings == "0" else f"{opened.removesuffix(' s')} / {closed.removesuffix(' s')}"
    text = f"{text}; {lost}, {refused}"
    return text if row.is_right else f"**{text}**"
