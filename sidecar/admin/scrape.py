"""Answers a scrape of `/metrics`: in the format and the coding that the scraper prefers (RFC 9110 12.4, 12.5)."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Final, Protocol

from sidecar.admin import prometheus
from sidecar.admin.own_series import own_series
from sidecar.core.numbers import Numbers
from sidecar.core.sources import Sources
from sidecar.serving.message import Request, Response

_OPENMETRICS: Final = "application/openmetrics-text"
_VERSIONS: Final = ("", "0.0.1", "1.0.0")
"""Of OpenMetrics: ours is 1.0.0, which a reader of 0.0.1 understands."""
_MAX_PREFERENCE: Final = 2048
"""Characters of a field that says what is preferred; scrapers send a few hundred."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_LEVEL: Final = 1
"""Of gzip: repeated names shrink to a tenth at any level, and this one takes the least time."""


class Scraped(Protocol):
    """What is asked of the process."""

    async def scraped(self) -> tuple[Numbers, Sources]:
        """All that is counted, of all processes that serve."""


async def metrics_response(request: Request, process: Scraped) -> Response:
    """The numbers as Prometheus text, or OpenMetrics where that is preferred; requests go on between pieces."""
    is_open = wants_openmetrics(", ".join(request.headers.all("accept")))
    wall_offset = time.time() - time.monotonic()
    numbers, sources = await process.scraped()
    rendered = prometheus.render(numbers, sources, openmetrics=is_open, wall_offset=wall_offset)
    coded = accepts_gzip(", ".join(request.headers.all("accept-encoding")))
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP) if coded else None
    pieces: list[bytes] = []
    for piece in chain(own_series(sources, openmetrics=is_open), rendered):
        pieces.append(piece.encode() if packer is None else packer.compress(piece.encode()))
        await asyncio.sleep(0)
    if packer is not None:
        pieces.append(packer.flush())
    kind = prometheus.OPENMETRICS_CONTENT_TYPE if is_open else prometheus.TEXT_CONTENT_TYPE
    fields = {"Vary": "Accept, Accept-Encoding", **({"Content-Encoding": "gzip"} if coded else {})}
    return Response(200, b"".join(pieces), kind=kind, fields=fields)


def wants_openmetrics(accept: str) -> bool:
    """Whether an `Accept` field prefers OpenMetrics to the older text, as Prometheus does when it may keep exemplars.
    Neither is preferred by `*/*` alone: then it is the older one."""
    open_weight, text_weight = 0.0, 0.0
    for kind, weight, version in _weighed(accept):
        if kind == _OPENMETRICS and version in _VERSIONS:
            open_weight = max(open_weight, weight)
        elif kind in ("text/plain", "text/*"):
            text_weight = max(text_weight, weight)
    return open_weight > 0.0 and open_weight >= text_weight


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` field names gzip, or `*` without naming it, with a weight above zero."""
    weights = {kind: weight for kind, weight, _ in _weighed(accept_encoding)}
    return weights.get("gzip", weights.get("*", 0.0)) > 0.0


def _weighed(field: str) -> Iterator[tuple[str, float, str]]:
    """Each item in lower case, its weight (RFC 9110 12.4.2; one that is no number counts as 0), and its version; none
    of a field that is too long."""
    if len(field) > _MAX_PREFERENCE:
        return
    for item in field.split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        weight, version = 1.0, ""
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                weight = _number(value.strip())
            elif name.strip() == "version":
                version = value.strip().strip('"')
        if kind:
            yield kind, weight, version


def _number(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0
