"""Tables for terminals of any width: shorter headings first, then shorter names, then fewer columns. Pure.

A number, a state or a heading is shown whole or not at all: half of one tells the wrong thing.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from sidecar.core.dataclass import dataclass

_GAP_COLUMNS = 2
"""Characters between two columns."""
_MIN_NAME_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class Column:
    """What stands over a column, and what becomes of it where there is little room."""

    heading: str
    short: str = ""
    """The heading where the other does not fit."""
    rank: int = 0
    """The column with the highest one is left out first, one with 0 never."""
    is_name: bool = False
    """May be cut, with an ellipsis."""
    is_number: bool = True
    """Stands at the right."""


def fitted(
    title: str, columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], width: int | None
) -> Table:
    """A table in at most `width` characters, where its names and what is never left out have room at all.

    None is no limit, as for a file or a pipe.
    """
    headings = [column.heading for column in columns]
    shown = list(range(len(columns)))
    natural = _natural(headings, rows)
    if width is not None and _sum(natural, shown) > width:
        headings = [column.short or column.heading for column in columns]
        natural = _natural(headings, rows)
        shown = _kept(columns, natural, width)
        natural = _cut(columns, natural, shown, width)
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.show_edge = False
    table.padding = (0, _GAP_COLUMNS - 1, 0, 0)
    for index in shown:
        table.add_column(
            headings[index],
            justify="right" if columns[index].is_number else "left",
            width=natural[index],
            overflow="ellipsis",
            no_wrap=True,
        )
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    return table


def _natural(headings: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> list[int]:
    """The width of each column where nothing is cut."""
    return [max([len(heading), *(len(row[index]) for row in rows)]) for index, heading in enumerate(headings)]


def _sum(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[index] for index in shown) + _GAP_COLUMNS * (len(shown) - 1)


def _kept(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int]:
    """The columns that have room once every name is as short as it may be."""
    least = [
        min(size, _MIN_NAME_CHARACTERS) if column.is_name else size
        for column, size in zip(columns, natural, strict=True)
    ]
    shown = list(range(len(columns)))
    while _sum(least, shown) > width:
        last = max(shown, key=lambda index: columns[index].rank)
        if columns[last].rank == 0:
            break
        shown.remove(last)
    return shown


def _cut(columns: Sequence[Column], natural: Sequence[int], shown: Sequence[int], width: int) -> list[int]:
    """The widths with the longest names cut until all fit."""
    widths = list(natural)
    names = [index for index in shown if columns[index].is_name]
    while names and _sum(widths, shown) > width:
        longest = max(names, key=widths.__getitem__)
        if widths[longest] <= 1:
            break
        widths[longest] -= 1
    return widths
