"""What is kept of an exchange that has ended: one record for its log line and its spans.

The record crosses from the loop to threads, so nothing in it changes any more, and it holds on to nothing of the
data path. What a client may make long is cut, so that full queues stay small. What only spans need is left out of
the record of an exchange that has none. Numbers need no record: they are counted on the loop, see `numbers.py`.

The type checker holds that nobody writes to a record (`Final`). A class that is frozen at run time takes eight
times as long to make. A named tuple is made as fast as these, but each field takes 11 ns more to read, of which a
line or a span reads thirty.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sidecar.core.client_tls import ClientTls
from sidecar.core.endpoint_facts import NO_ENDPOINT
from sidecar.core.observe import ObservedAttempt, ObservedExchange
from sidecar.core.outcome import Judged
from sidecar.core.retry import RetryCause
from sidecar.core.secured import TlsFacts
from sidecar.core.snapshot import Endpoint, Match

MAX_TARGET_BYTES: Final = 1024
MAX_NAME_BYTES: Final = 256
"""Of `Host` and of `User-Agent`."""
MAX_REQUEST_ID_BYTES: Final = 128
MAX_DETAIL: Final = 256
"""Characters."""
MAX_TRACESTATE_BYTES: Final = 512
"""A longer one is left out, since half of a member says nothing."""


class Spoken(NamedTuple):
    """What an exchange was in, with its client."""

    http_version: str
    grpc_status: int | None = None
    """How a gRPC call ended; None for another request."""
    tls: ClientTls | None = None
    """What the client's handshake has shown; None in clear text."""


_HTTP: Final = {version: Spoken(version) for version in ("1.0", "1.1", "2")}
"""One for all of a version: nothing is made for a plain request."""


def _spoken(exchange: ObservedExchange) -> Spoken:
    request = exchange.request
    traits = request.traits
    if traits.is_grpc:
        return Spoken(traits.http_version, exchange.grpc_status, request.tls)
    if request.tls is not None:
        return Spoken(traits.http_version, None, request.tls)
    return _HTTP[traits.http_version]


_NOT_TOLD: Final[tuple[Match | None, bytes | None]] = (None, None)


class FinishedAttempt:
    """One try against one endpoint; the fields are those of `ObservedAttempt`, and what is known of the endpoint.

    `judged` is None unless who asks for the record wants it: to put it together takes 0.9 of 3.9 µs.
    """

    __slots__ = (
        "cause", "ejected", "ended", "facts", "grpc_status", "judged", "reason", "resend", "sent_ms", "span_id",
        "started", "status", "upstream", "waited_seconds",
    )  # fmt: skip

    def __init__(self, attempt: ObservedAttempt, judged: Judged | None = None) -> None:
        pool = attempt.pool
        self.upstream: Final = attempt.upstream
        self.facts: Final = NO_ENDPOINT if pool is None else pool.facts
        self.span_id: Final = attempt.span_id
        self.started: Final = attempt.started
        self.ended: Final = attempt.ended
        self.status: Final = attempt.status
        self.reason: Final = attempt.reason
        self.judged: Final = judged
        self.ejected: Final = attempt.ejected
        self.resend: Final = attempt.resend
        self.cause: Final = attempt.cause
        self.waited_seconds: Final = attempt.waited_seconds
        self.sent_ms: Final = attempt.sent_ms
        self.grpc_status: Final = attempt.grpc_status

    @property
    def endpoint(self) -> Endpoint | None:
        return self.facts.endpoint

    @property
    def http_version(self) -> str:
        return self.facts.http_version

    @property
    def scheme(self) -> str:
        return self.facts.scheme

    @property
    def tls(self) -> TlsFacts | None:
        return self.facts.tls

    @property
    def is_hedge(self) -> bool:
        return self.cause is RetryCause.HEDGE


class FinishedExchange:
    """One exchange; the fields are those of `ObservedExchange` unless it says otherwise here."""

    __slots__ = (
        "attempt_count", "attempts", "breaker_state", "budget", "detail", "ended", "endpoint", "fallback", "host",
        "listener", "method", "parent_id", "peer", "reason", "refused_by", "request_bytes",
        "request_id", "response_bytes", "route_name", "routed", "span_id", "spoken", "started", "status",
        "target",
        "trace_id", "tracestate", "tripped", "upstream", "user_agent",
    )  # fmt: skip

    def __init__(
        self, exchange: ObservedExchange, attempts: tuple[FinishedAttempt, ...] | None = None
    ) -> None:
        """`attempts` are those of the exchange if it has spans, None if it is only logged.

        Runs on the loop. Lengths are compared first, which costs half of cutting what need not be cut.
        """
        request, trace = exchange.request, exchange.trace
        target, host, agent = request.target, request.host, request.lookup.get(b"user-agent")
        request_id, detail = trace.request_id, exchange.detail
        self.request_id: Final = (
            request_id if len(request_id) <= MAX_REQUEST_ID_BYTES else request_id[:MAX_REQUEST_ID_BYTES]
        )
        self.listener: Final = request.listener
        self.route_name: Final = exchange.route_name
        self.method: Final = request.method
        self.target: Final = target if len(target) <= MAX_TARGET_BYTES else target[:MAX_TARGET_BYTES]
        self.host: Final = host if len(host) <= MAX_NAME_BYTES else host[:MAX_NAME_BYTES]
        self.peer: Final = exchange.stream.peer
        self.user_agent: Final = (
            agent if agent is None or len(agent) <= MAX_NAME_BYTES else agent[:MAX_NAME_BYTES]
        )
        self.trace_id: Final = trace.trace_id
        self.span_id: Final = trace.span_id
        self.started: Final = exchange.started
        self.ended: Final = exchange.ended
        self.status: Final = exchange.status
        self.reason: Final = exchange.reason
        self.detail: Final = detail if len(detail) <= MAX_DETAIL else detail[:MAX_DETAIL]
        body = exchange.body
        self.request_bytes: Final = 0 if body is None else body.size
        self.response_bytes: Final = exchange.response_bytes
        self.budget: Final = exchange.budget
        self.breaker_state: Final = exchange.breaker_state
        self.fallback: Final = exchange.fallback
        self.spoken: Final = _spoken(exchange)
        tried = exchange.attempts
        last = tried[-1] if tried else None
        pool = None if last is None else last.pool
        self.attempt_count: Final = len(tried)
        self.upstream: Final = None if last is None else last.upstream
        """Of the last attempt, None without any."""
        self.endpoint: Final = None if pool is None else pool.facts.endpoint
        """The same."""
        has_spans = attempts is not None
        state = trace.tracestate if has_spans else b""
        self.tracestate: Final = trace.untrusted or (state if len(state) <= MAX_TRACESTATE_BYTES else b"")
        """A stranger's request has what it brought in the place of it, also if it is only logged."""
        self.attempts: Final = attempts or ()
        """This and all that follows is empty in a record without spans."""
        self.parent_id: Final = trace.parent_id if has_spans else None
        self.routed: Final = _routed(exchange) if has_spans else _NOT_TOLD
        """`match` and `rewritten_target`."""
        self.refused_by: Final = exchange.refused_by if has_spans else None
        self.tripped: Final = exchange.tripped if has_spans else None

    @property
    def match(self) -> Match | None:
        return self.routed[0]

    @property
    def rewritten_target(self) -> bytes | None:
        return self.routed[1]


def _routed(exchange: ObservedExchange) -> tuple[Match | None, bytes | None]:
    entry, route = exchange.matched, exchange.route
    match = None if entry is None else entry.match
    if route is None or route.rewriting is None or (sent := exchange.rewritten_target) is None:
        return match, None
    return match, sent if len(sent) <= MAX_TARGET_BYTES else sent[:MAX_TARGET_BYTES]


def with_spans(exchange: ObservedExchange) -> FinishedExchange:
    """The record of a sampled exchange."""
    attempts = exchange.attempts
    if len(attempts) == 1:  # as nearly always: a loop costs 0.1 µs more
        return FinishedExchange(exchange, (FinishedAttempt(attempts[0]),))
    return FinishedExchange(exchange, tuple(map(FinishedAttempt, attempts)))


def with_verdicts(exchange: ObservedExchange) -> FinishedExchange:
    """The same with what the breaker has said of each attempt."""
    attempts = tuple([FinishedAttempt(one, one.judged) for one in exchange.attempts])
    return FinishedExchange(exchange, attempts)
