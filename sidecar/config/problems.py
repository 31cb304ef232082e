"""What is wrong with a configuration, where, and how that is shown. Knows nothing of YAML or of the file
format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sidecar.core.dataclass import dataclass

ADVICE = "advice: "
MAX_REMEDIES = 100
"""Problems whose remedies are looked for: to compare a word with all that it may stand for takes up to some
milliseconds, and a file of 8 MiB has room for a million misspelt ones."""
_SHOWN_COLUMNS = 120
_UNSHOWABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
"""Controls, line ends, and marks that turn or hide the text behind them."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a file; line and column count from 1, columns in characters."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to correct. `str()` is `FILE:LINE:COLUMN: message`, the line itself, and a caret under the
    column.
    """

    file: str
    line: int
    column: int
    message: str
    text: str = ""
    """The offending line as it stands in the file, without its end; empty when there is none to show. In a
    `ConfigError` it has a `*` for each character of a secret (see `tell/hidden_in_problems`).
    """

    @property
    def is_advice(self) -> bool:
        """It may be meant so, and the file alone does not say: no reason for `check --strict` to fail."""
        return self.message.startswith(ADVICE)

    def __str__(self) -> str:
        head = _UNSHOWABLE.sub(" ", f"{self.file}:{self.line}:{self.column}: {self.message}")
        if not self.text:
            return head
        shown, column = _window(self.text, self.column)
        return f"{head}\n{_UNSHOWABLE.sub(' ', shown)}\n{' ' * (column - 1)}^"


def _window(text: str, column: int) -> tuple[str, int]:
    """Cut a very long line to what stands around `column`; return it with the column's new number."""
    if len(text) <= _SHOWN_COLUMNS:
        return text, column
    start = max(0, min(column - _SHOWN_COLUMNS // 2, len(text) - _SHOWN_COLUMNS))
    cut = text[start : start + _SHOWN_COLUMNS]
    lead = "…" if start else ""
    tail = "…" if start + _SHOWN_COLUMNS < len(text) else ""
    return f"{lead}{cut}{tail}", column - start + len(lead)


class ConfigError(Exception):
    """A configuration that cannot be used, with every problem found, in the order of the files."""

    def __init__(self, problems: Sequence[Problem], files: Sequence[str] = (), digest: str = "") -> None:
        """`files` are all that were read or looked for, as `digest` tells: a change there may be the cure."""
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.files: tuple[str, ...] = tuple(files)
        self.digest = digest
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...], tuple[str, ...], str]]:
        return ConfigError, (self.problems, self.files, self.digest)


class Report:
    """Collects problems while a configuration is read. The same message at the same place is kept once."""

    __slots__ = ("_problems",)

    def __init__(self) -> None:
        self._problems: dict[tuple[str, int, int, str], tuple[Problem, Callable[[], Problem] | None]] = {}

    def __bool__(self) -> bool:
        """True once there is a problem."""
        return bool(self._problems)

    def add(self, problem: Problem, with_remedy: Callable[[], Problem] | None = None) -> None:
        """`with_remedy` gives the same problem with a remedy that takes long to find."""
        key = (problem.file, problem.line, problem.column, problem.message)
        self._problems[key] = problem, with_remedy

    def sorted(self, files: Sequence[str]) -> list[Problem]:
        """All problems by file, in the order of `files` (unlisted ones last), then by position. The first
        `MAX_REMEDIES` have their remedies.
        """
        rank = {name: index for index, name in enumerate(files)}

        def by_place(item: tuple[Problem, object]) -> tuple[int, str, int, int]:
            one = item[0]
            return rank.get(one.file, len(rank)), one.file, one.line, one.column

        found = sorted(self._problems.values(), key=by_place)
        return [
            with_remedy() if with_remedy is not None and number < MAX_REMEDIES else problem
            for number, (problem, with_remedy) in enumerate(found)
        ]
