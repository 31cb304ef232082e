"""`GET /outcomes/{route}`: what came of its last requests, in pages; `sidecar tune` reads them.

A page is made in turns, and copied from the ring before the first, so that what is written meanwhile changes nothing
in it. Rows are lists and not objects, since a whole ring has 65,536 of them. Owned by the event loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sidecar.admin import request_facts
from sidecar.admin.answers import Refused
from sidecar.admin.breakers import find_route, moment_of
from sidecar.admin.process import Data, Process
from sidecar.core.outcomes.record import OutcomeRecord
from sidecar.core.outcomes.store import OutcomeStore
from sidecar.serving.message import Request

MOST_ROWS: Final = 4096
"""Of a page; as many come where nobody says."""
COLUMNS: Final = (
    "at",
    "attempt",
    "is_hedge",
    "endpoint",
    "head_ms",
    "whole_ms",
    "status",
    "verdict",
    "state",
    "reason",
)


def asked(request: Request) -> tuple[str, int, int]:
    """The route, the number of the first record, and how many. Raises: Refused, 400 for what cannot be read."""
    query = request_facts.query(request, "from", "limit")
    begin, limit = _number(query.get("from"), "from", 0), _number(query.get("limit"), "limit", MOST_ROWS)
    if not 0 < limit <= MOST_ROWS:
        raise Refused(400, f"limit={limit}: say 1 to {MOST_ROWS}")
    return request.matched["route"], begin, limit


def page(process: Process, name: str, begin: int, limit: int) -> tuple[Data, Iterator[Any]]:
    """What stands before the rows, and the rows. Raises: Refused, 404 for a route that there is not."""
    route = find_route(process, name)
    ring = process.outcomes.rings.get(route.name)
    if ring is None:  # it asks no upstream
        head: Data = {"route": route.name, "first": 0, "next": None, "dropped": 0, "kept": 0,
                      "bytes": 0, "columns": COLUMNS, "names": []}  # fmt: skip
        return head, iter(())
    first, records = ring.rows(begin, limit)
    following = first + len(records)
    is_last = following >= ring.dropped + len(ring)
    head = {
        "route": route.name,
        "first": first,
        "next": None if is_last else following,
        "dropped": ring.dropped,
        "kept": len(ring),
        "bytes": ring.used_bytes,
        "columns": COLUMNS,
        "names": list(ring.names),
    }
    return head, _rows(records, moment_of(process).wall_offset)


def told_store(store: OutcomeStore) -> Data:
    """For `/status`."""
    return {
        "routes": len(store.rings),
        "bytes": store.used_bytes,
        "limit_bytes": store.limit_bytes,
        "unkept": store.unkept,
    }


def _rows(records: list[OutcomeRecord], offset: float) -> Iterator[Any]:
    for one in records:
        yield [
            round(one.at + offset, 6),
            one.attempt,
            one.is_hedge,
            one.endpoint,
            None if one.head_seconds is None else round(one.head_seconds * 1000, 3),
            round(one.whole_seconds * 1000, 3),
            one.status,
            None if one.verdict is None else one.verdict.value,
            one.state.value,
            None if one.reason is None else one.reason.value,
        ]


def _number(text: str | None, name: str, default: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Refused(400, f"{name}={text[:50]}: say a number, 0 or more")
    return int(text)
