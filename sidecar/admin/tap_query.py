"""What a reader of `/tap` asks to see, from the query of its request, strictly."""

from __future__ import annotations

import re
from typing import Final

from sidecar.admin import request_facts
from sidecar.admin.answers import Refused
from sidecar.admin.breakers import find_route
from sidecar.admin.process import Process
from sidecar.admin.tap import Wanted
from sidecar.serving.message import Request

MAX_HEADERS: Final = 8
_FIELD: Final = re.compile(
    r"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}):[ \t]*([\t\x20-\x7e\x80-\xff]{0,1024}?)[ \t]*"
)
"""RFC 9110 5.1 and 5.5."""


def wanted(request: Request, process: Process) -> Wanted:
    """Raises: Refused, 400 for what cannot be read, 404 for a route that there is not."""
    query = request_facts.query(request, "route", "open", "slow", "header", several="header")
    route, is_open = query.get("route"), query.get("open", "false")
    if route is not None:
        find_route(process, route)
    if is_open not in ("true", "false"):
        raise Refused(400, f"open={is_open[:50]}: say true or false")
    headers = query.all("header")
    if len(headers) > MAX_HEADERS:
        raise Refused(400, f"header is given {len(headers)} times; at most {MAX_HEADERS}")
    return Wanted(route, is_open == "true", _slow(query.get("slow"), process), tuple(map(_field, headers)))


def _slow(text: str | None, process: Process) -> float:
    if text is None:
        return 0.0
    try:
        return process.seconds(text)
    except ValueError as error:
        raise Refused(400, f"slow: {error}") from None


def _field(text: str) -> tuple[bytes, bytes]:
    found = _FIELD.fullmatch(text)
    if found is None:
        raise Refused(400, f"header={text[:100]}: say NAME: VALUE, such as x-tenant: blue")
    return found[1].lower().encode(), found[2].encode("latin-1")
