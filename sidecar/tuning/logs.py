"""Reads calls from lines of the access log. Pure.

A line must have `tried` (`telemetry.access_log.attempts: true`), and no line may be missing: of a share of the calls
neither rows of failures nor rates are known."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from sidecar.core.transition import State
from sidecar.tuning import seen
from sidecar.tuning.pages import call_of
from sidecar.tuning.seen import MOST_CALLS, Call, CannotTune, as_written, numbered

MAX_LINE: Final = 1 << 20
"""Characters. Ours have some hundreds for each attempt."""


def read_log(lines: Iterable[str], route: str, home: str) -> tuple[list[Call], int]:
    """The last calls of `route`, and how many were before them. `home`: the upstream that is meant where a line of a
    refused request names none.

    Raises:
        CannotTune: the lines are not what is needed.
    """
    kept: deque[Call] = deque(maxlen=MOST_CALLS)
    count = 0
    for line in _of_route(lines, route):
        with as_written():
            calls = list(_calls(line, home))
        kept += calls
        count += len(calls)
    if not kept:
        raise CannotTune(f"no line of the log is about a request of {route!r}")
    return numbered(kept), count - len(kept)


def _of_route(lines: Iterable[str], route: str) -> Iterator[Mapping[str, Any]]:
    for number, text in enumerate(lines, 1):
        if len(text) > MAX_LINE:
            raise CannotTune(
                f"line {number} is longer than {MAX_LINE} characters: no line of an access log is"
            )
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            if text.strip():
                told = f"line {number} is no JSON: set telemetry.access_log.format to json"
                raise CannotTune(f"{told}, and take its lines as they are") from None
            continue
        if not isinstance(line, dict) or line.get("kind") != "access" or line.get("route") != route:
            continue
        _check(line, number)
        yield line


def _check(line: Mapping[str, Any], number: int) -> None:
    if "tried" not in line:
        told = f"line {number} does not tell of its attempts: set telemetry.access_log.attempts to true"
        raise CannotTune(f"{told}, and come back after some outages")
    if "sample_ratio" in line:
        told = f"line {number} is one of a sample ({line['sample_ratio']})"
        remedy = "set telemetry.access_log.sample_ratio to 1"
        raise CannotTune(f"{told}: {remedy}, since rows and rates of failures are not known from a part")


def _calls(line: Mapping[str, Any], home: str) -> Iterator[Call]:
    if "refused_at" in line:
        at, upstream = line["refused_at"], line.get("refused_by") or home
        yield Call(seen.number(at), seen.name(upstream), state=State(line.get("breaker", State.OPEN.value)))
    for one in line["tried"]:
        call = call_of(one, one["upstream"], one.get("endpoint"))
        if call is not None:
            yield call
