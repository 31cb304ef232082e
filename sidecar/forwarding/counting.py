"""What an exchange that has ended is counted by.

It is read here, where the exchange's own class is known, and not behind a contract of `core`: to ask for a field by
its name takes 170 instructions in the compiled build, and this asks for fifteen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.errors import Reason
from sidecar.core.numbers import FOLD_VALUES

if TYPE_CHECKING:
    from sidecar.core.numbers import Numbers, Retry, Shape, ShapeKey
    from sidecar.forwarding.attempt import Attempt
    from sidecar.forwarding.race import RaceOwner


def count(numbers: Numbers, exchange: RaceOwner) -> None:
    """Called once for each exchange, on the loop."""
    attempts = exchange.attempts
    ended, budget, request = exchange.ended, exchange.budget, exchange.request
    seconds = ended - exchange.started
    if attempts:
        first = attempts[0]
        upstream: str | None = first.upstream
        span_id = first.span_id  # a line for each: a tuple of four is made and taken apart
        status = first.status
        reason = first.reason
        grpc_status = first.grpc_status
        first_ended = first.ended
        first_seconds = first_ended - first.started
    else:
        upstream, span_id, status, grpc_status = None, b"", 0, None
        reason = Reason.DEADLINE_EXCEEDED if budget.is_spent else None
        first_ended = first_seconds = 0.0
    key: ShapeKey = (
        exchange.route_name,
        request.method,
        exchange.status,
        exchange.reason,
        budget.source,
        upstream,
        status,
        reason,
        (exchange.grpc_status, grpc_status) if request.traits.is_grpc else None,
    )
    shape = numbers.shapes.get(key) or numbers.shape(key, request.listener)
    trace = exchange.trace
    if trace.is_sampled:
        shape.sampled.append(
            (trace.trace_id, trace.span_id, span_id, seconds, ended, first_seconds, first_ended)
        )
    if len(attempts) > 1:
        _keep_retries(shape, exchange)
    values = shape.values
    values.extend((seconds, first_seconds, budget.measured_seconds))
    if len(values) >= FOLD_VALUES:
        numbers.fold_if_free(shape)


def _keep_retries(shape: Shape, exchange: RaceOwner) -> None:
    trace_id = exchange.trace.trace_id if exchange.trace.is_sampled else None
    attempts = exchange.attempts
    for attempt in attempts[1:]:
        shape.retries.append((_retry(attempt), trace_id))
    for attempt in attempts:
        if attempt.resend:
            hedge = _hedge_outcome(attempt, is_last=attempt is attempts[-1]) if attempt.is_hedge else ""
            shape.again.append((attempt.upstream, attempt.cause, hedge))


def _retry(attempt: Attempt) -> Retry:
    seconds = attempt.ended - attempt.started
    return (
        attempt.upstream, attempt.status, attempt.reason, attempt.grpc_status, seconds, attempt.ended, attempt.span_id
    )  # fmt: skip


def _hedge_outcome(attempt: Attempt, *, is_last: bool) -> str:
    if attempt.reason is not None:
        return "failed"
    return "won" if is_last and attempt.status else "lost"
