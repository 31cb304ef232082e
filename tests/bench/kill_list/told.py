"""What came of a scene: a row of the table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.kill_list.load import CIRCUIT_OPEN, Call
from tests.bench.kill_list.world import LONGEST_WAIT_SECONDS

MAX_TEXT = 90
_USUAL = frozenset({"access", "process.started", "process.ended", "config.diff"})


@dataclass(frozen=True)
class Row:
    """Times are seconds."""

    name: str
    calls: int
    failed: int
    needless: int
    waited: int
    """Refused after an outage by a breaker whose wait was not over yet, as it has to (SPEC 3)."""
    fates: str
    recovery: float
    slowest: float
    mebibytes: tuple[float, float, float]
    """Before the fault, at most, and after it."""
    log: str

    def line(self) -> str:
        before, most, after = self.mebibytes
        return (
            f"| {self.name} | {self.calls} | {self.failed} | {self.needless} | {self.waited} | {self.fates or '-'} |"
            f" {self.recovery:.1f} s | {self.slowest * 1000:.0f} ms | {before:.0f} / {most:.0f} / {after:.0f} |"
            f" {self.log} |"
        )


_COLUMNS = (
    "scene", "requests", "failed", "needlessly", "in the breaker's wait", "how", "time to recover",
    "slowest good answer", "MiB before / most / after", "what the log said",
)  # fmt: skip
HEAD = f"| {' | '.join(_COLUMNS)} |\n|{' --- |' * len(_COLUMNS)}"


def row(
    name: str, calls: Sequence[Call], fault: tuple[float, float], mebibytes: Sequence[float], log: str,
    *, is_outage: bool,
) -> Row:  # fmt: skip
    """`fault` is when it began and when it ended. In an outage only what fails outside of it fails needlessly, and
    not by a breaker that still waits."""
    began, ended = fault
    failed = [call for call in calls if not call.is_good]
    outside = [
        call for call in failed if not (is_outage and began <= call.at + call.seconds and call.at <= ended)
    ]
    waited = [
        call
        for call in outside
        if is_outage and CIRCUIT_OPEN in call.fate and ended < call.at <= ended + LONGEST_WAIT_SECONDS
    ]
    fates = ", ".join(
        f"{count}x {fate}" for fate, count in Counter(call.fate for call in failed).most_common(3)
    )
    late = [call.at + call.seconds - ended for call in failed if call.at > ended]
    good = [call.seconds for call in calls if call.is_good]
    memory = (mebibytes[0], max(mebibytes), mebibytes[-1])
    return Row(
        name,
        len(calls),
        len(failed),
        len(outside) - len(waited),
        len(waited),
        fates,
        max(late, default=0.0),
        max(good, default=0.0),
        memory,
        log,
    )


def said(text: str) -> str:
    """The log in a few words: kinds with their counts, then the first thing that was not JSON."""
    kinds: Counter[str] = Counter()
    plain = ""
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            plain = plain or line
            continue
        kind = record.get("kind", "?")
        if kind == "config.reload":
            kind += " " + str(record.get("result", ""))
        if kind == "circuit_breaker.transition":
            kind = f"breaker {record.get('to', '')}"
        if kind not in _USUAL:
            kinds[kind] += 1
    words = [f"{count}x {kind}" for kind, count in kinds.most_common(4)]
    if plain:
        words.append(plain.replace("|", "/")[:MAX_TEXT])
    return "; ".join(words) or "nothing"
