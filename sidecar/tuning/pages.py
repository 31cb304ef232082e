"""Reads what a running sidecar has kept of a route: the pages of `GET /outcomes/{route}`, and the policy in use. Pure
but for `ask`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from sidecar.core.errors import Reason
from sidecar.core.outcome import Verdict
from sidecar.core.transition import State
from sidecar.tuning.seen import MOST_CALLS, Call, CannotTune, as_written, name, number, numbered

Ask = Callable[[str], Any]
"""The JSON at a path of the admin API."""
MOST_PAGES: Final = MOST_CALLS // 256
"""Asked for, whatever their size."""


def read_pages(ask: Ask, route: str) -> tuple[list[Call], int]:
    """All calls that are kept, and how many were dropped before them.

    Raises:
        CannotTune: there are none, or the answer is not of this version.
    """
    calls: list[Call] = []
    begin: int | None = 0
    dropped = 0
    for place in range(MOST_PAGES):
        page = ask(f"/outcomes/{quote(route, safe='')}?from={begin}")
        with as_written():
            dropped = int(page["dropped"]) if place == 0 else dropped
            calls += _calls(page)
            begin = None if page["next"] is None else int(page["next"])
        if begin is None:
            break
    if not calls:
        raise CannotTune(f"no request of {route!r} has come since this process began: try again later")
    return numbered(calls), dropped


def _calls(page: Mapping[str, Any]) -> Iterator[Call]:
    names, columns = page["names"], page["columns"]
    for row in page["rows"]:
        one = dict(zip(columns, row, strict=True))
        call = call_of(one, *names[one["endpoint"]])
        if call is not None:
            yield call


def call_of(one: Mapping[str, Any], upstream: object, endpoint: object) -> Call | None:
    """Of a row, or of a member of `tried` in the access log. None for what no breaker has decided on: a request that
    this sidecar had no place for. Whoever calls it does so within `as_written`."""
    reason = None if one["reason"] is None else Reason(one["reason"])
    verdict = None if one["verdict"] is None else Verdict(one["verdict"])
    if verdict is None and reason is not Reason.CIRCUIT_OPEN:
        return None
    head = one["head_ms"]
    return Call(
        at=number(one["at"]),
        upstream=name(upstream),
        endpoint=name(endpoint or ""),
        attempt=int(one["attempt"]),
        head_seconds=None if head is None else number(head) / 1000.0,
        whole_seconds=number(one["whole_ms"]) / 1000.0,
        status=int(one["status"]),
        verdict=verdict,
        state=State(one["state"]),
        reason=reason,
    )
