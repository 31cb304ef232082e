"""What is kept of an exchange that has ended, for its log line.

The record crosses from the loop to threads, so nothing in it changes any more, and it holds on to nothing of the
data path. What a client may make long is cut, so that full queues stay small. Spans have a record of their own
(`recorded.py`), and numbers need none: they are counted on the loop, see `numbers.py`.

The type checker holds that nobody writes to a record (`Final`). A class that is frozen at run time takes eight
times as long to make. A named tuple is made as fast as these, but each field takes 11 ns more to read by its name.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sidecar.core.client_tls import ClientTls
from sidecar.core.observe import ObservedAttempt, ObservedExchange

MAX_TARGET_BYTES: Final = 1024
MAX_NAME_BYTES: Final = 256
"""Of `Host` and of `User-Agent`."""
MAX_REQUEST_ID_BYTES: Final = 128
MAX_DETAIL: Final = 256
"""Characters."""


class Spoken(NamedTuple):
    """What an exchange was in, with its client."""

    http_version: str
    grpc_status: int | None = None
    """How a gRPC call ended; None for another request."""
    tls: ClientTls | None = None
    """What the client's handshake has shown; None in clear text."""


PLAIN: Final = {version: Spoken(version) for version in ("1.0", "1.1", "2")}
"""One for all of a version: nothing is made for a plain request."""


def spoken_with(exchange: ObservedExchange) -> Spoken:
    """That of a request by TLS, or of a gRPC call."""
    request = exchange.request
    version = request.traits.http_version
    return Spoken(version, exchange.grpc_status if request.traits.is_grpc else None, request.tls)


class FinishedAttempt:
    """One try against one endpoint, for a log that tells of each; the fields are those of `ObservedAttempt`."""

    __slots__ = ("endpoint", "is_hedge", "judged", "reason", "resend", "started", "status", "upstream")

    def __init__(self, attempt: ObservedAttempt) -> None:
        pool = attempt.pool
        self.upstream: Final = attempt.upstream
        self.endpoint: Final = None if pool is None else pool.facts.endpoint
        self.started: Final = attempt.started
        self.status: Final = attempt.status
        self.reason: Final = attempt.reason
        self.judged: Final = attempt.judged
        self.resend: Final = attempt.resend
        self.is_hedge: Final = attempt.is_hedge


class FinishedExchange:
    """One exchange; the fields are those of `ObservedExchange` and its parts unless it says otherwise here."""

    __slots__ = (
        "attempt_count", "attempts", "breaker_state", "budget", "detail", "ended", "endpoint", "fallback", "host",
        "listener", "method", "peer", "reason", "refused_by", "request_bytes", "request_id", "response_bytes",
        "route_name", "span_id", "spoken", "started", "status", "target", "trace_id", "untrusted", "upstream",
        "user_agent",
    )  # fmt: skip

    def __init__(self, exchange: ObservedExchange, attempts: tuple[FinishedAttempt, ...] = ()) -> None:
        """`attempts` are those of the exchange, or none if the log tells of no attempt.

        Runs on the loop. Lengths are compared first, which costs half of cutting what need not be cut.
        """
        request, trace = exchange.request, exchange.trace
        target, host, agent = request.target, request.host, request.lookup.get(b"user-agent")
        request_id, detail, body = trace.request_id, exchange.detail, exchange.body
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
        self.untrusted: Final = trace.untrusted
        self.started: Final = exchange.started
        self.ended: Final = exchange.ended
        self.status: Final = exchange.status
        self.reason: Final = exchange.reason
        self.detail: Final = detail if len(detail) <= MAX_DETAIL else detail[:MAX_DETAIL]
        self.request_bytes: Final = 0 if body is None else body.size
        self.response_bytes: Final = exchange.response_bytes
        self.budget: Final = exchange.budget
        self.breaker_state: Final = exchange.breaker_state
        self.refused_by: Final = exchange.refused_by
        self.fallback: Final = exchange.fallback
        is_plain = request.tls is None and not request.traits.is_grpc
        self.spoken: Final = PLAIN[request.traits.http_version] if is_plain else spoken_with(exchange)
        tried = exchange.attempts
        last = tried[-1] if tried else None
        pool = None if last is None else last.pool
        self.attempt_count: Final = len(tried)
        self.upstream: Final = None if last is None else last.upstream
        """Of the last attempt, None without any."""
        self.endpoint: Final = None if pool is None else pool.facts.endpoint
        """The same."""
        self.attempts: Final = attempts


def with_verdicts(exchange: ObservedExchange) -> FinishedExchange:
    """The record with each attempt, and what the breaker has said of it."""
    return FinishedExchange(exchange, tuple([FinishedAttempt(one) for one in exchange.attempts]))
