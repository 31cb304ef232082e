"""The two heads that an exchange writes: the request to the upstream and the response to the client.

Pure assembly of bytes, one join each. What to leave out and what a route adds was computed when the route was
built (`live.py`); here only what differs from request to request is decided.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING

from sidecar.core import deadline, headers
from sidecar.core.deadline import Carried, Form
from sidecar.core.plain import Field
from sidecar.core.tracecontext import FLAG_TEXT
from sidecar.forwarding import date
from sidecar.forwarding.traits import PLAIN

if TYPE_CHECKING:
    from sidecar.forwarding.attempt import Attempt
    from sidecar.forwarding.exchange import Exchange
    from sidecar.forwarding.live import LiveRoute

_STATUS_LINES = headers.STATUS_LINES
_CONTENT_LENGTH = frozenset({b"content-length"})
_NOT_IN_INTERIM = headers.HOP_BY_HOP | _CONTENT_LENGTH
_EXPECT = frozenset({b"expect"})
_BAGGAGE = Form.BAGGAGE
_DATE = date.KEY
_BETWEEN_TRACE_FIELDS = tuple(flags + b"\r\ntracestate: sidecar=" for flags in FLAG_TEXT)
"""What stands between the span id in `traceparent` and the one in `tracestate` (`tracecontext.format_...`)."""


def request_head(exchange: Exchange, attempt: Attempt, seconds_left: float) -> bytes:
    """The head that the upstream gets in this attempt."""
    route, span_id, sent_ms = attempt.route, attempt.span_id, attempt.sent_ms
    drop = route.drop_request
    carried = exchange.budget.carried
    if exchange.traits is not PLAIN or route.injects_baggage:
        drop, end = _unusual(exchange, route, seconds_left)
    elif sent_ms is None:
        end = b"\r\n\r\n"
    elif not carried:
        end = b"\r\nx-envoy-expected-rq-timeout-ms: %d\r\n\r\n" % sent_ms
    elif known := _around_milliseconds(drop, carried):
        drop, text = known
        end = (b"%d" % sent_ms).join(text)
    else:
        drop, end = _unusual(exchange, route, seconds_left)
    kept = []
    for key, line, _ in exchange.fields:
        if key not in drop:
            kept.append(line)  # a comprehension is a call of its own until Python 3.12
    return b"".join([
        exchange.method, b" ",
        exchange.origin_target if route.prefix is None else upstream_target(exchange, route.prefix),
        b" HTTP/1.1\r\nHost: ", route.host or exchange.host, b"\r\n",
        *kept,
        route.request_block, exchange.request_id,
        b"\r\ntraceparent: 00-", exchange.trace_id, b"-", span_id, _BETWEEN_TRACE_FIELDS[exchange.flags & 3],
        span_id, exchange.tracestate and b"," + exchange.tracestate, end,
    ])  # fmt: skip


@lru_cache(maxsize=1024)  # 0.2 µs, where `_unusual` takes 2
def _around_milliseconds(
    drop: frozenset[bytes], carried: tuple[Carried, ...]
) -> tuple[frozenset[bytes], list[bytes]] | None:
    """What is left out where these timeouts are written anew, and the end of the head, cut wherever the milliseconds
    stand; None if they cannot be written so.
    """
    if any(field.form not in deadline.IN_MILLISECONDS for field in carried):
        return None
    fields = deadline.timeout_fields(carried, 0.0, is_grpc=False)
    text, unit = [], b""
    for name, zero in fields:
        text.append(unit + b"\r\n" + name + b": ")
        unit = zero[1:]
    text.append(unit + b"\r\n\r\n")
    return drop | {name for name, _ in fields}, text


def _unusual(exchange: Exchange, route: LiveRoute, seconds_left: float) -> tuple[frozenset[bytes], bytes]:
    """What is left out and what comes last, for a request that a route alone does not determine."""
    drop = route.drop_request
    own: list[bytes] = [b"\r\n"]
    is_grpc = exchange.traits.is_grpc
    if exchange.traits is not PLAIN:
        drop |= _special_drop(exchange)
        own += _special_lines(exchange)
    carried = exchange.budget.carried
    if carried or is_grpc:
        fields = deadline.timeout_fields(carried, seconds_left, is_grpc=is_grpc)
        drop |= {name for name, _ in fields}
        for name, value in fields:
            own += (name, b": ", value, b"\r\n")
    elif route.is_deadline_sent and seconds_left < inf:
        own.append(b"x-envoy-expected-rq-timeout-ms: %d\r\n" % (seconds_left * 1000))
    if (carried or route.injects_baggage) and seconds_left < inf:
        drop = _baggage(exchange, route, seconds_left, drop, own)
    own.append(b"\r\n")
    return drop, b"".join(own)


def upstream_target(exchange: Exchange, prefix: bytes) -> bytes:
    """The target with the matched prefix rewritten."""
    rest = exchange.origin_target[exchange.prefix_length :]
    target = prefix.rstrip(b"/") + rest
    return target if target.startswith(b"/") else b"/" + target


def _special_drop(exchange: Exchange) -> frozenset[bytes]:
    """What the request's own `Connection` lists, and an `Expect` that an HTTP/1.0 client cannot mean."""
    drop = headers.listed_in_connection(exchange.lookup.get(b"connection", b""))
    return drop | _EXPECT if exchange.traits.http_version == "1.0" else drop


def _special_lines(exchange: Exchange) -> list[bytes]:
    """Hop-by-hop fields that are made anew for the next hop: framing, upgrade, the wish for trailers."""
    lines = []
    options = []
    if exchange.traits.is_chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if exchange.traits.wants_upgrade:
        options.append(b"Upgrade")
        lines.append(b"Upgrade: %b\r\n" % exchange.lookup[b"upgrade"])
    if b"trailers" in exchange.lookup.get(b"te", b"").lower():
        options.append(b"TE")
        lines.append(b"TE: trailers\r\n")
    if options:
        lines.append(b"Connection: %b\r\n" % b", ".join(options))
    return lines


def _baggage(
    exchange: Exchange, route: LiveRoute, seconds_left: float, drop: frozenset[bytes], extra: list[bytes]
) -> frozenset[bytes]:
    """Write `deadline-ms` where the caller sent it or the route asks for it."""
    is_carried = any(field.form is _BAGGAGE for field in exchange.budget.carried)
    if not (is_carried or route.deadline.inject_baggage):
        return drop
    value = deadline.with_baggage_deadline(exchange.lookup.get(deadline.BAGGAGE), seconds_left)
    extra += (b"baggage: ", value, b"\r\n")
    return drop | {deadline.BAGGAGE}


def response_lines(exchange: Exchange, route: LiveRoute, attempt: Attempt) -> list[bytes]:
    """The head that the client gets, but for its framing, which is the client connection's own affair."""
    drop = route.drop_response
    if attempt.listed:
        drop |= headers.listed_in_connection(attempt.listed)
    status = attempt.status
    if status == 204 or status == 101:
        drop |= _CONTENT_LENGTH  # RFC 9110 8.6: must not be there, and could frame what follows
    return kept_lines(exchange, route, status, attempt.fields, drop)


def kept_lines(
    exchange: Exchange, route: LiveRoute, status: int, fields: list[Field], drop: frozenset[bytes]
) -> list[bytes]:
    """The same, where it is known what to leave out."""
    out = [_STATUS_LINES.get(status) or headers.status_line(status)]
    has_date = route.sets_date
    for key, line, _ in fields:
        if key not in drop:
            out.append(line)
        elif key == _DATE and not has_date:
            out.append(line)
            has_date = True
    if not has_date:
        out.append(date.line())
    out += (route.response_block, exchange.request_id, b"\r\n")
    if exchange.fallback is not None:
        out.append(exchange.client.proxy_status_line(exchange))
    return out


def interim_head(status: int, fields: list[Field], listed: bytes) -> bytes:
    """A 1xx head on its way to the client (RFC 9110 15.2)."""
    out = [headers.status_line(status)]
    headers.append_fields(out, fields, _NOT_IN_INTERIM | headers.listed_in_connection(listed))
    out.append(b"\r\n")
    return b"".join(out)


def switching_head(exchange: Exchange, route: LiveRoute, attempt: Attempt) -> bytes:
    """The 101 head: the one case in which `Connection` and `Upgrade` go on to the client."""
    out = response_lines(exchange, route, attempt)
    upgrade = next((value for key, _, value in attempt.fields if key == b"upgrade"), b"")
    out += (b"Connection: Upgrade\r\nUpgrade: ", upgrade, b"\r\n\r\n")
    return b"".join(out)


def is_wanted_switch(exchange: Exchange, attempt: Attempt) -> bool:
    """True if the upstream switches to what the client offered (RFC 9110 7.8)."""
    offered = {token.strip().lower() for token in exchange.lookup[b"upgrade"].split(b",")}
    chosen = b",".join(value for key, _, value in attempt.fields if key == b"upgrade")
    return {token.strip().lower() for token in chosen.split(b",")} <= offered
