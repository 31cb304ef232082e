"""The inputs that are kept: one file for each target, one input a line, written as Python writes bytes.

Read again at every run, so that what one run has found is where the next begins; the suite feeds all of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tests.bench.fuzz.targets import Target

FOLDER: Final = Path(__file__).parent / "corpus"
MAX_KEPT_BYTES: Final = 60_000
"""Of one target's file: a corpus is for beginning, not for keeping all that was ever found."""


def kept(name: str) -> list[bytes]:
    path = FOLDER / f"{name}.txt"
    lines = path.read_text("ascii").splitlines() if path.exists() else []
    return [ast.literal_eval(line) for line in lines]


def keep(name: str, inputs: Iterable[bytes]) -> int:
    """Write those that are to be kept, the short ones first and no more than have room; returns how many."""
    lines: list[str] = []
    size = 0
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        line = ascii(data)
        size += len(line) + 1
        if size > MAX_KEPT_BYTES:
            break
        lines.append(line)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), "ascii")
    return len(lines)


def beginnings(target: Target) -> Iterator[bytes]:
    """All that a run of a target begins with."""
    seen = set()
    for data in (*kept(target.name), *target.seeds()):
        if data not in seen and len(data) <= target.max_bytes:
            seen.add(data)
            yield data
