"""What spans and events say of breakers, of causes and of endpoints: the same words wherever they stand."""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Iterator

from sidecar.core.breaker.words import because
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.transition import Cause, Transition
from sidecar.telemetry import wire


def of_breaker(transition: Transition) -> tuple[bytes, ...]:
    """Attributes of a change, for its span and for the exchange that brought it about."""
    return (
        wire.text("sidecar.circuit_breaker.name", transition.breaker.encode()),
        wire.text("sidecar.circuit_breaker.state.from", transition.from_state.value.encode()),
        wire.text("sidecar.circuit_breaker.state.to", transition.to_state.value.encode()),
        wire.text("sidecar.circuit_breaker.reason", transition.reason.value.encode()),
        wire.text("sidecar.route", transition.route.encode()),
        wire.text("sidecar.upstream", transition.upstream.encode()),
        *_why(transition),
    )


def of_endpoint(change: EndpointChange, offset_ns: int) -> bytes:
    """The event of an attempt that has made its endpoint be left out, or nearly so."""
    told = [
        wire.text("sidecar.endpoint", change.endpoint.encode()),
        wire.text("sidecar.ejection.why", change.why.encode("utf-8", "replace")),
        wire.number("sidecar.ejection.seconds", round(change.seconds)),
    ]
    if change.reason is not None:
        told.append(wire.text("sidecar.ejection.reason", change.reason.value.encode()))
    return wire.event(f"endpoint.{change.health.value}", ns(change.at, offset_ns), tuple(told))


def _why(transition: Transition) -> Iterator[bytes]:
    if words := because(transition):
        yield wire.text("sidecar.circuit_breaker.why", words.encode())
    if transition.order is not None:
        yield wire.text("sidecar.circuit_breaker.override.by", transition.order.by.encode())


def of_cause(cause: Cause) -> Iterator[bytes]:
    yield from result_of(cause)
    if cause.detail:
        yield wire.text("sidecar.detail", cause.detail.encode("utf-8", "replace"))


def result_of(cause: Cause) -> Iterator[bytes]:
    """Without its words, which the exchange has."""
    yield wire.text("sidecar.request_id", cause.request_id)
    if cause.error_type:
        yield wire.text("error.type", cause.error_type.encode())
    if cause.status:
        yield wire.number("http.response.status_code", cause.status)
    if cause.endpoint:
        yield wire.text("sidecar.endpoint", cause.endpoint.encode())


def of_wait(started: float, waited_seconds: float, offset_ns: int) -> bytes:
    """The event of an attempt that had no connection at first, at the end of its wait."""
    told = (wire.seconds("sidecar.upstream.wait", waited_seconds),)
    return wire.event("connection.waited", ns(started + waited_seconds, offset_ns), told)


def ns(seconds: float, offset_ns: int) -> int:
    """A monotonic time as nanoseconds since the epoch."""
    return int(seconds * 1e9) + offset_ns


def of_window(transition: Transition) -> tuple[bytes, ...]:
    """What the breaker had counted when it changed, and how long it is to wait."""
    window = transition.window
    told = (
        wire.number("sidecar.circuit_breaker.sequence", transition.sequence),
        wire.number("sidecar.circuit_breaker.window.total", window.total),
        wire.number("sidecar.circuit_breaker.window.failed", window.failed),
        wire.number("sidecar.circuit_breaker.window.slow", window.slow),
    )
    if transition.wait_seconds is None:
        return told
    return *told, wire.number("sidecar.circuit_breaker.wait_ms", round(transition.wait_seconds * 1000))


def cause_link(cause: Cause) -> bytes:
    """To the exchange. Its flags say whether there is something at the other end."""
    ids = unhexlify(cause.trace_id), unhexlify(cause.span_id)
    return wire.link(*ids, tuple(of_cause(cause)), is_sampled=cause.is_sampled)


def cause_event(cause: Cause, at: float, offset_ns: int) -> bytes:
    """The same as an event, since Jaeger shows no attributes of links. `at` in monotonic seconds."""
    return wire.event("circuit_breaker.cause", ns(at, offset_ns), tuple(of_cause(cause)))
