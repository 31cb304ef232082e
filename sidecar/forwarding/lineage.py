"""Which inbound exchange an outbound one descends from, and what that means for it (SPEC 5.3, 5.4).

The table is `core/callers.py`; here it is asked and told at the right moments of an exchange's story. An exchange
*to* the app is remembered under the span id that it sends; a call *of* the app looks its caller up, is bounded by
the caller's deadline, and ends with the caller where the match was exact and the route allows it.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import cast

from sidecar.core.errors import Reason
from sidecar.core.grpc_status import GrpcStatus
from sidecar.core.observe import ObservedAttempt
from sidecar.core.outcome import NEAR_THE_END_GRPC
from sidecar.core.retry import MARK, SAFE
from sidecar.core.snapshot import CancelWithCaller, Mode
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.live import LiveRoute
from sidecar.forwarding.story import Story

_CUT_SHORT = frozenset({Reason.CLIENT_GONE, Reason.CALLER_GONE, Reason.TIMEOUT, Reason.DEADLINE_EXCEEDED})
"""Ends of an inbound exchange after which nobody waits for what its app still does."""


def recover(exchange: Story, route: LiveRoute) -> None:
    """Find the caller of an outbound exchange and hang the exchange on it.

    Raises:
        GivenUp: the caller has gone, and the route lets calls end with their caller.
    """
    policy = route.deadline
    trace = exchange.trace
    parent_id = trace.parent_id
    if not policy.recover_from_trace:
        return
    callers = exchange.service.callers
    if parent_id is None:
        if callers:
            callers.ties.untied += 1
        return
    found = callers.find(trace.own_member, parent_id, trace.trace_id, exchange.started)
    if found is None:
        if callers:
            callers.ties.untied += 1
        return
    callers.ties.tied += 1
    if not found.is_exact:
        callers.ties.by_trace_alone += 1
    if policy.mode is Mode.OFF:
        return
    exchange.caller = found
    if policy.mode is not Mode.ENFORCE or not _may_cancel(exchange, policy.cancel_with_caller):
        return
    if found.why is not None and found.deadline > exchange.started:
        raise GivenUp(Reason.CALLER_GONE, "caller gone")
    if found.entry is not None:
        callers.attach(found.entry, exchange)
        if exchange.service.beside.others is not None:
            exchange.service.beside.others.watch()


def _may_cancel(exchange: Story, policy: CancelWithCaller) -> bool:
    if policy is CancelWithCaller.SAFE:
        return exchange.request.method in SAFE  # to stop such a call half-way changes nothing
    return policy is CancelWithCaller.ALL


def is_for_retry(exchange: Story) -> bool:
    """Whether the request that this one was made for is a retry."""
    caller = exchange.caller
    return caller is not None and caller.entry is not None and caller.entry.is_retry


def remember(exchange: Story, span_id: bytes, now: float, *, is_retry: bool = False) -> None:
    """An attempt at the app is about to be sent: from now on the app's calls can be recognised. Each has an entry of
    its own, also beside one that is slow: what the app does for either ends with that one."""
    exchange.is_remembered = True
    trace = exchange.trace
    trace_id = trace.trace_id if trace.untrusted is None else None
    is_retry = is_retry or MARK in exchange.request.lookup
    exchange.service.callers.enter(span_id, trace_id, exchange.deadline, now, is_retry=is_retry)


def switched(exchange: Story) -> None:
    """101: a tunnel outlives its handshake's deadline, and so may the calls that the app makes for it from now on."""
    if exchange.is_remembered:
        exchange.service.callers.extend(exchange.tries[-1].span_id, inf)


def attempt_ended(exchange: Story, attempt: ObservedAttempt, reason: Reason | None, now: float) -> None:
    """One of the attempts is over, whatever becomes of the exchange. `reason`: None where the app has answered; then,
    and where the app broke it off, what it still does for it goes on."""
    if reason is None and _is_timeout_of_app(exchange, attempt, now):
        reason = Reason.TIMEOUT
    _end(exchange, attempt.span_id, reason, now)


def attempt_cut(exchange: Story, attempt: ObservedAttempt, now: float) -> None:
    """The same of one that is given up while the app is at it, for whatever reason: because of its client, of the
    request's own body, or of another attempt that was faster."""
    reason = attempt.reason
    _end(exchange, attempt.span_id, reason if reason in _CUT_SHORT else Reason.CALLER_GONE, now)


def forget(exchange: Story, now: float) -> None:
    """The exchange is over: cancel what hangs on it if it was cut short, and let go of its own caller."""
    callers = exchange.service.callers
    caller = exchange.caller
    if caller is not None and caller.entry is not None:
        callers.detach(caller.entry, exchange)
    if exchange.is_remembered:
        # Of the attempt, not of the exchange: where a fallback's upstream answered, its app was waited for. All but
        # the last one have ended before.
        last = exchange.tries[-1]
        attempt_ended(exchange, last, last.reason, now)


def _is_timeout_of_app(exchange: Story, attempt: ObservedAttempt, now: float) -> bool:
    """A gRPC server says itself that the time is up, a little before our own cut: its call is over by that."""
    if not exchange.request.traits.is_grpc or attempt.grpc_status != GrpcStatus.DEADLINE_EXCEEDED:
        return False
    return exchange.deadline - now <= (exchange.deadline - exchange.started) * (1.0 - NEAR_THE_END_GRPC)


def _end(exchange: Story, span_id: bytes, reason: Reason | None, now: float) -> None:
    """Nobody waits any more for what the app does under `span_id`: let that go on only if it was answered."""
    callers = exchange.service.callers
    if reason is None or reason not in _CUT_SHORT:
        callers.leave(span_id, now)
        return
    if not callers.is_live(span_id):
        return  # its attempt has ended before the exchange
    hanging = callers.bury(span_id, now, reason)
    if exchange.service.beside.others is not None:
        exchange.service.beside.others.tell(span_id, reason)
    for outbound in hanging:
        exchange.service.turns.end(partial(end_with_caller, cast(Story, outbound)))


def end_with_caller(call: Story) -> None:
    """End one call of an app whose caller has gone. A mistake in that cuts the call."""
    try:
        call.caller_gone()
    except Exception:
        call.abandon()
        raise
