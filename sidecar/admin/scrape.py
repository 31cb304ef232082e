"""Answers a scrape of `/metrics`: in the format and the coding that the scraper prefers (RFC 9110 12.4, 12.5)."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import chain
from typing import Final, Protocol

from sidecar.admin import prometheus, prometheus_protobuf
from sidecar.core.numbers import Numbers
from sidecar.core.sources import Sources
from sidecar.serving.message import Request, Response

_PROTOBUF: Final = "application/vnd.google.protobuf"
_DELIMITED: Final = ("io.prometheus.client.metricfamily", "delimited")
"""What is in it, and how; in lower case."""
_OPENMETRICS: Final = "application/openmetrics-text"
_VERSIONS: Final = ("", "0.0.1", "1.0.0")
"""Of OpenMetrics: ours is 1.0.0, which a reader of 0.0.1 understands."""
_MAX_PREFERENCE: Final = 2048
"""Characters of a field that says what is preferred; scrapers send a few hundred."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_LEVEL: Final = 1
"""Of gzip: repeated names shrink to a tenth at any level, and this one takes the least time."""


class Format(Enum):
    """By content type; the better one first."""

    PROTOBUF = prometheus_protobuf.CONTENT_TYPE
    OPENMETRICS = prometheus.OPENMETRICS_CONTENT_TYPE
    TEXT = prometheus.TEXT_CONTENT_TYPE


class Scraped(Protocol):
    """What is asked of the process."""

    async def scraped(self) -> tuple[Numbers, Sources]:
        """All that is counted, of all processes that serve."""


async def metrics_response(request: Request, process: Scraped) -> Response:
    """The numbers in the format that is preferred; requests go on between pieces."""
    wall_offset = time.time() - time.monotonic()
    numbers, sources = await process.scraped()
    accept = ", ".join(request.headers.all("accept"))
    form = preferred(accept, may_be_protobuf=sources.native_histograms)
    coded = accepts_gzip(", ".join(request.headers.all("accept-encoding")))
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP) if coded else None
    pieces: list[bytes] = []
    for piece in _rendered(form, numbers, sources, wall_offset):
        pieces.append(piece if packer is None else packer.compress(piece))
        await asyncio.sleep(0)
    if packer is not None:
        pieces.append(packer.flush())
    fields = {"Vary": "Accept, Accept-Encoding", **({"Content-Encoding": "gzip"} if coded else {})}
    return Response(200, b"".join(pieces), kind=form.value, fields=fields)


def _rendered(form: Format, numbers: Numbers, sources: Sources, wall_offset: float) -> Iterator[bytes]:
    if form is Format.PROTOBUF:
        yield from prometheus_protobuf.render_own(sources)
        yield from prometheus_protobuf.render(numbers, sources, wall_offset=wall_offset)
        return
    is_open = form is Format.OPENMETRICS
    own = prometheus.render_own(sources, openmetrics=is_open)
    others = prometheus.render(numbers, sources, openmetrics=is_open, wall_offset=wall_offset)
    for piece in chain(own, others):
        yield piece.encode("utf-8", "replace")  # a file's name need not be text


def preferred(accept: str, *, may_be_protobuf: bool) -> Format:
    """What an `Accept` field asks for most: protobuf, as Prometheus does that takes native histograms, or
    OpenMetrics, as it does when it may keep exemplars. Neither is preferred by `*/*` alone: then it is the older
    text. `may_be_protobuf`: there are native histograms, without which protobuf says no more than text."""
    weights = dict.fromkeys(Format, 0.0)
    for kind, weight, parameters in _weighed(accept):
        form = _named(kind, parameters)
        if form is not None:
            weights[form] = max(weights[form], weight)
    if not may_be_protobuf:
        del weights[Format.PROTOBUF]
    best = max(weights, key=lambda form: weights[form])  # the first of equals
    return best if weights[best] > 0.0 else Format.TEXT


def _named(kind: str, parameters: Mapping[str, str]) -> Format | None:
    if kind == _PROTOBUF:
        asked = parameters.get("proto"), parameters.get("encoding")
        return Format.PROTOBUF if asked == _DELIMITED else None
    if kind == _OPENMETRICS:
        return Format.OPENMETRICS if parameters.get("version", "") in _VERSIONS else None
    return Format.TEXT if kind in ("text/plain", "text/*") else None


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` field names gzip, or `*` without naming it, with a weight above zero."""
    weights = {kind: weight for kind, weight, _ in _weighed(accept_encoding)}
    return weights.get("gzip", weights.get("*", 0.0)) > 0.0


def _weighed(field: str) -> Iterator[tuple[str, float, Mapping[str, str]]]:
    """Each item in lower case, its weight (RFC 9110 12.4.2; one that is no number counts as 0), and its parameters;
    none of a field that is too long."""
    if len(field) > _MAX_PREFERENCE:
        return
    for item in field.split(","):
        kind, *rest = (part.strip().lower() for part in item.split(";"))
        parameters: dict[str, str] = {}
        for parameter in rest:
            name, _, value = parameter.partition("=")
            parameters[name.strip()] = value.strip().strip('"')
        if kind:
            yield kind, _number(parameters.get("q", "1")), parameters


def _number(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0
