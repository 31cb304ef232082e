"""The heads that an attempt sends: the request to the upstream, and the response on its way to the client.

Pure: says what of a head does not go on, and what this hop adds; the codecs write it. What a route leaves out and
adds was computed when the route was built (`live.py`); here only what differs from request to request is decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Final

from sidecar.core import deadline, headers
from sidecar.core.deadline import Carried, Form
from sidecar.core.forwarded import lines_without
from sidecar.core.head import NOTHING, Own, RequestHead, ResponseHead
from sidecar.core.propagation.chain import lines_of
from sidecar.core.propagation.form import ContextForm, NextIds
from sidecar.core.request import PLAIN, PLAIN_2, Request
from sidecar.core.retry import MARK
from sidecar.core.snapshot import Endpoint
from sidecar.core.tracecontext import FLAG_TEXT
from sidecar.forwarding.answers import proxy_status

if TYPE_CHECKING:
    from sidecar.forwarding.live import LiveRoute
    from sidecar.forwarding.story import Story
    from sidecar.forwarding.trace import Trace

_CONTENT_LENGTH: Final = frozenset({b"content-length"})
_NOT_IN_INTERIM: Final = headers.HOP_BY_HOP | _CONTENT_LENGTH
_EXPECT: Final = frozenset({b"expect"})
_PROXY_STATUS: Final = frozenset({b"proxy-status"})
"""By it the next sidecar names its own upstreams and breakers, which are nobody's affair on a stranger's side."""
_MARKS: Final = frozenset({MARK})
_SPECIAL: Final = frozenset({101, 204, 426})
"""Statuses whose heads are not like others'."""
_BAGGAGE: Final = Form.BAGGAGE
_EXPECTED: Final = b"\r\nx-envoy-expected-rq-timeout-ms: "
MAX_NUMBERS: Final = 256
_NUMBERS: Final[dict[int, bytes]] = {}
"""Milliseconds as they are written. Where the route alone bounds an exchange they hardly differ: 0.1 µs less than to
write the number. When they are so many, all are forgotten."""
_BETWEEN_TRACE_FIELDS: Final = tuple(flags + b"\r\ntracestate: sidecar=" for flags in FLAG_TEXT)
"""What stands between the span id in `traceparent` and the one in `tracestate` (`tracecontext.format_...`)."""


_Written = tuple[frozenset[bytes], list[bytes]]
"""What a route leaves out where it writes some timeouts anew, and what follows the first of these, `_EXPECTED`, cut
wherever the milliseconds stand."""
MAX_WRITTEN: Final = 1024
_written: Final[dict[tuple[frozenset[bytes], tuple[Carried, ...]], _Written]] = {}
"""By what the route leaves out in any case, and by the timeouts: 0.2 µs, where `_unusual` takes 2. When they are so
many, all are forgotten."""


def request_head(
    exchange: Story,
    route: LiveRoute,
    span_id: bytes,
    sent_ms: int | None,
    told_seconds: float,
    endpoint: Endpoint | None,
    copys: Trace | None = None,
) -> RequestHead:
    """The head that the upstream gets in one attempt, whose span is `span_id`.

    `told_seconds`: what it is told of its time; infinite without a bound. `sent_ms`: the same in milliseconds, None
    where it is told nothing. `copys`: the ids of a copy of the request, in the place of its own.
    """
    request = exchange.request
    trace = copys or exchange.trace
    drop = route.drop_request
    carried = exchange.budget.carried
    own = [
        request.added if not route.own_forwarded else lines_without(request.added, route.own_forwarded),
        b"x-request-id: ", trace.request_id,
        b"\r\ntraceparent: 00-", trace.trace_id, b"-", span_id, _BETWEEN_TRACE_FIELDS[trace.flags & 3],
        span_id + b"," + trace.tracestate if trace.tracestate else span_id,
        _EXPECTED, b"", b"\r\n",
    ]  # fmt: skip
    traits = request.traits
    if (traits is not PLAIN and traits is not PLAIN_2) or route.deadline.inject_baggage:
        if sent_ms is not None and carried in _GRPC_ALONE and _is_plain_grpc(request, route):
            drop = _without_grpc_times(drop)
            own[10:] = (b"%d" % sent_ms, b"\r\ngrpc-timeout: ", deadline.grpc_timeout(told_seconds), b"\r\n")
        else:
            del own[9:]
            drop = _unusual(exchange, route, told_seconds, own)
    elif sent_ms is None:
        del own[9:11]
    elif not carried:  # the usual case: a list that does not grow takes 300 instructions less
        own[10] = _NUMBERS.get(sent_ms) or _number(sent_ms)
    else:
        known = _written.get((drop, carried)) or _written_by(drop, carried)
        if known is None:
            del own[9:]
            drop = _unusual(exchange, route, told_seconds, own)
        else:
            drop, text = known
            number = own[10] = b"%d" % sent_ms
            own[11] = number.join(text)
    head = RequestHead()
    head.request = request
    rewriting = route.rewriting
    if rewriting is None:
        head.target = request.origin_target
        head.authority = request.host or _authority(endpoint)
    else:
        head.target = rewriting.target(request.origin_target, exchange.prefix_length)
        head.authority = rewriting.host or request.host or _authority(endpoint)
    if route.acting is not None:
        own.append(route.acting.lines_for_upstream(exchange))
    if trace.forms is not None:
        drop = _tell_forms(trace, trace.forms, span_id, request, drop, own)
    head.drop = drop
    head.added = route.added_to_request
    head.own = own
    return head


def _tell_forms(
    trace: Trace,
    forms: Sequence[ContextForm],
    span_id: bytes,
    request: Request,
    drop: frozenset[bytes],
    own: Own,
) -> frozenset[bytes]:
    """Write the trace's context in the forms beside W3C's; returns what is left out. Where the route sets or removes
    a field of a form, the whole form is the route's."""
    told = [form for form in forms if form.fields.isdisjoint(drop)]
    own.append(lines_of(told, request.lookup, NextIds(trace.trace_id, span_id, trace.is_sampled)))
    return drop.union(*(form.fields for form in told))


def mark_retry(head: RequestHead) -> None:
    """Say that it is a further try, or was asked for by one: it is not tried again further down."""
    head.drop |= _MARKS
    head.own.append(MARK + b": 1\r\n")


def _number(milliseconds: int) -> bytes:
    if len(_NUMBERS) >= MAX_NUMBERS:
        _NUMBERS.clear()
    number = _NUMBERS[milliseconds] = b"%d" % milliseconds
    return number


def _authority(endpoint: Endpoint | None) -> bytes:
    """What an HTTP/1.0 request without a host of its own asks for (RFC 9112 3.2: every other one must name it)."""
    return b"localhost" if endpoint is None or endpoint.path is not None else str(endpoint).encode()


def _written_by(drop: frozenset[bytes], carried: tuple[Carried, ...]) -> _Written | None:
    """How these timeouts are written anew by a route that leaves out `drop`; None if they cannot be written so."""
    if any(field.form not in deadline.IN_MILLISECONDS for field in carried):
        return None
    fields = deadline.timeout_fields(carried, 0.0, is_grpc=False)
    text, unit = [], b""
    for name, zero in fields:
        text.append(unit + b"\r\n" + name + b": ")
        unit = zero[1:]
    text.append(unit + b"\r\n")
    if len(_written) >= MAX_WRITTEN:
        _written.clear()
    known = _written[drop, carried] = drop | {name for name, _ in fields}, text[1:]
    return known


_GRPC_ALONE: Final = ((), (deadline.carried_field(deadline.GRPC_TIMEOUT, Form.GRPC),))


def _is_plain_grpc(request: Request, route: LiveRoute) -> bool:
    """A gRPC call by HTTP/2, as nearly all of them are: its time is all that `_unusual` would find about it."""
    traits = request.traits
    if not traits.is_grpc or traits.http_version != "2" or traits.has_underscores:
        return False
    return not route.deadline.inject_baggage


@lru_cache(maxsize=1024)
def _without_grpc_times(drop: frozenset[bytes]) -> frozenset[bytes]:
    return drop | {deadline.EXPECTED_TIMEOUT, deadline.GRPC_TIMEOUT}


def _unusual(exchange: Story, route: LiveRoute, told_seconds: float, own: Own) -> frozenset[bytes]:
    """Add the last lines of a request that a route alone does not determine; returns what is left out."""
    drop = route.drop_request
    own.append(b"\r\n")
    request = exchange.request
    is_grpc = request.traits.is_grpc
    if request.traits is not PLAIN:
        drop |= _listed_and_expect(request)
    carried = exchange.budget.carried
    if carried or (is_grpc and route.is_deadline_sent):
        fields = deadline.timeout_fields(carried, told_seconds, is_grpc=is_grpc)
        drop |= {name for name, _ in fields}
        for name, value in fields:
            own += (name, b": ", value, b"\r\n")
    elif route.is_deadline_sent and told_seconds < inf:
        own.append(b"x-envoy-expected-rq-timeout-ms: %d\r\n" % (told_seconds * 1000))
    if (carried or route.deadline.inject_baggage) and told_seconds < inf:
        drop = _baggage(exchange, route, told_seconds, drop, own)
    return headers.with_underscored(drop, request.lookup) if request.traits.has_underscores else drop


def _listed_and_expect(request: Request) -> frozenset[bytes]:
    """What the request's own `Connection` lists, and an `Expect` that an HTTP/1.0 client cannot mean."""
    drop = headers.listed_in_connection(request.lookup.get(b"connection", b""))
    return drop | _EXPECT if request.traits.http_version == "1.0" else drop


def _baggage(
    exchange: Story, route: LiveRoute, seconds_left: float, drop: frozenset[bytes], own: Own
) -> frozenset[bytes]:
    """Write `deadline-ms` where the caller sent it or the route asks for it."""
    is_carried = any(field.form is _BAGGAGE for field in exchange.budget.carried)
    if not (is_carried or route.deadline.inject_baggage):
        return drop
    value = deadline.with_baggage_deadline(exchange.request.lookup.get(deadline.BAGGAGE), seconds_left)
    own += (b"baggage: ", value, b"\r\n")
    return drop | {deadline.BAGGAGE}


def complete_response(exchange: Story, route: LiveRoute, head: ResponseHead) -> None:
    """Say what of an upstream's head goes on to the client, and what is added."""
    head.drop = route.drop_response
    head.added = route.added_to_response
    head.has_own_date = route.sets_date
    head.own = [b"x-request-id: ", exchange.trace.request_id, b"\r\n"]
    if route.acting is not None:
        head.own += route.acting.lines_for_client(exchange)
    if (
        head.listed
        or head.status in _SPECIAL
        or exchange.fallback is not None
        or exchange.trace.untrusted is not None
    ):
        _complete_unusual(exchange, head)


def _complete_unusual(exchange: Story, head: ResponseHead) -> None:
    """The same for what the route does not determine alone."""
    if head.listed:
        head.drop |= headers.listed_in_connection(head.listed)
    status = head.status
    if status == 204 or status == 101:
        head.drop |= _CONTENT_LENGTH  # RFC 9110 8.6: must not be there, and could frame what follows
    if status == 426:  # RFC 9110 15.5.22: it says to what
        upgrade = b", ".join(value for key, _, value in head.fields if key == b"upgrade")
        head.own += (b"Connection: Upgrade\r\nUpgrade: ", upgrade, b"\r\n") if upgrade else ()
    is_stranger = exchange.trace.untrusted is not None
    if is_stranger:
        head.drop |= _PROXY_STATUS
    if exchange.fallback is not None:
        assert exchange.reason is not None
        told = (exchange.reason.error_type, None) if is_stranger else (exchange.detail, exchange.fallback)
        head.own += (b"Proxy-Status: ", proxy_status(exchange.reason, *told), b"\r\n")


def complete_interim(head: ResponseHead) -> ResponseHead:
    """The same for a 1xx (RFC 9110 15.2)."""
    head.drop = _NOT_IN_INTERIM | headers.listed_in_connection(head.listed)
    head.added, head.own, head.has_own_date = NOTHING, [], True
    return head


def chosen_upgrade(request: Request, head: ResponseHead) -> bytes | None:
    """What the upstream switches to, as it says it; None unless the client offered it (RFC 9110 7.8)."""
    chosen = b", ".join(value for key, _, value in head.fields if key == b"upgrade")
    return chosen if _tokens(chosen) <= _tokens(request.traits.upgrade) else None


def _tokens(value: bytes) -> set[bytes]:
    return {token.strip().lower() for token in value.split(b",")}
