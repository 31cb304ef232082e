"""What is kept of a sampled exchange that has ended, for its spans.

The record crosses from the loop to a thread, so nothing in it changes any more, and it holds on to nothing of the
data path. What a client may make long is cut, so that full queues stay small.

It is a plain tuple, which is unpacked at once where spans are made of it; what reads few fields names them, by
`RecordedExchange(*record)`. To make an object of it, on the loop, takes twice the instructions, and a named tuple
1,600 more for each, even by `tuple.__new__`.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from sidecar.core.deadline import Budget
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.endpoint_facts import NO_ENDPOINT, EndpointFacts
from sidecar.core.errors import Reason
from sidecar.core.finished import (
    MAX_DETAIL,
    MAX_NAME_BYTES,
    MAX_REQUEST_ID_BYTES,
    MAX_TARGET_BYTES,
    PLAIN,
    Spoken,
    spoken_with,
)
from sidecar.core.observe import ObservedAttempt, ObservedExchange
from sidecar.core.retry import RetryCause
from sidecar.core.snapshot import Match
from sidecar.core.transition import State, Transition
from sidecar.core.untrusted import Untrusted

MAX_TRACESTATE_BYTES: Final = 512
"""A longer one is left out, since half of a member says nothing."""


class RecordedAttempt(NamedTuple):
    """One try against one endpoint; the fields are those of `ObservedAttempt`, but for `facts`."""

    upstream: str
    facts: EndpointFacts
    """Of its endpoint."""
    span_id: bytes
    started: float
    ended: float
    status: int
    reason: Reason | None
    ejected: EndpointChange | None
    resend: int
    cause: RetryCause | None
    waited_seconds: float
    sent_ms: int | None
    grpc_status: int | None


AttemptFields: TypeAlias = tuple[
    str,
    EndpointFacts,
    bytes,
    float,
    float,
    int,
    Reason | None,
    EndpointChange | None,
    int,
    RetryCause | None,
    float,
    int | None,
    int | None,
]
"""Those of `RecordedAttempt`, in its order: the type checker holds the two against each other."""


class RecordedExchange(NamedTuple):
    """One exchange; the fields are those of `ObservedExchange` and its parts, unless it says otherwise here."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    tracestate: bytes
    """Empty if it was longer than `MAX_TRACESTATE_BYTES`."""
    untrusted: Untrusted | None
    request_id: bytes
    listener: str
    route_name: str | None
    match: Match | None
    method: bytes
    target: bytes
    rewritten_target: bytes | None
    host: bytes
    user_agent: bytes | None
    peer: tuple[str, int] | None
    spoken: Spoken
    started: float
    ended: float
    status: int
    reason: Reason | None
    detail: str
    budget: Budget
    breaker_state: State | None
    fallback: str | None
    refused_by: Transition | None
    tripped: Transition | None
    attempts: tuple[AttemptFields, ...]


ExchangeFields: TypeAlias = tuple[
    bytes,
    bytes,
    bytes | None,
    bytes,
    Untrusted | None,
    bytes,
    str,
    str | None,
    Match | None,
    bytes,
    bytes,
    bytes | None,
    bytes,
    bytes | None,
    tuple[str, int] | None,
    Spoken,
    float,
    float,
    int,
    Reason | None,
    str,
    Budget,
    State | None,
    str | None,
    Transition | None,
    Transition | None,
    tuple[AttemptFields, ...],
]
"""The same of `RecordedExchange`."""


def recorded(exchange: ObservedExchange) -> ExchangeFields:
    """The record of a sampled exchange. Runs on the loop."""
    request, trace, attempts = exchange.request, exchange.trace, exchange.attempts
    request_id, target, host, detail = trace.request_id, request.target, request.host, exchange.detail
    agent, state, traits = request.lookup.get(b"user-agent"), trace.tracestate, request.traits
    entry, route, reason = exchange.matched, exchange.route, exchange.reason
    # Lengths are compared first, which costs half of cutting what need not be cut.
    if len(request_id) > MAX_REQUEST_ID_BYTES:
        request_id = request_id[:MAX_REQUEST_ID_BYTES]
    if len(target) > MAX_TARGET_BYTES:
        target = target[:MAX_TARGET_BYTES]
    if len(host) > MAX_NAME_BYTES:
        host = host[:MAX_NAME_BYTES]
    if agent is not None and len(agent) > MAX_NAME_BYTES:
        agent = agent[:MAX_NAME_BYTES]
    if state and len(state) > MAX_TRACESTATE_BYTES:
        state = b""
    if detail and len(detail) > MAX_DETAIL:
        detail = detail[:MAX_DETAIL]
    sent = None
    if route is not None and route.rewriting is not None:
        sent = exchange.rewritten_target
        if sent is not None:
            sent = sent[:MAX_TARGET_BYTES]
    is_plain = not traits.is_grpc and request.tls is None
    return (
        trace.trace_id,
        trace.span_id,
        trace.parent_id,
        state,
        trace.untrusted,
        request_id,
        request.listener,
        exchange.route_name,
        None if entry is None else entry.match,
        request.method,
        target,
        sent,
        host,
        agent,
        exchange.stream.peer,
        PLAIN[traits.http_version] if is_plain else spoken_with(exchange),
        exchange.started,
        exchange.ended,
        exchange.status,
        reason,
        detail,
        exchange.budget,
        exchange.breaker_state,
        exchange.fallback,
        exchange.refused_by,
        exchange.tripped,
        # A loop for the only one, as nearly always, takes 400 instructions more.
        (_attempt(attempts[0]),) if len(attempts) == 1 else tuple([_attempt(one) for one in attempts]),
    )


def _attempt(attempt: ObservedAttempt) -> AttemptFields:
    pool = attempt.pool
    return (
        attempt.upstream,
        NO_ENDPOINT if pool is None else pool.facts,
        attempt.span_id,
        attempt.started,
        attempt.ended,
        attempt.status,
        attempt.reason,
        attempt.ejected,
        attempt.resend,
        attempt.cause,
        attempt.waited_seconds,
        attempt.sent_ms,
        attempt.grpc_status,
    )
