"""What a SERVER span says of an attempt that has no CLIENT span of its own (`telemetry.traces.client_spans`).

The upstream was then called under the SERVER span's own id, and that span has the upstream's place and time. Where
another attempt followed, or a fallback served, the first one's failure is an event of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.core.numbers import client_error_type
from sidecar.core.recorded import RecordedAttempt, RecordedExchange
from sidecar.core.secrets import redacted_path
from sidecar.core.snapshot import Endpoint
from sidecar.telemetry import wire
from sidecar.telemetry.attributes import ns, of_endpoint, of_wait

DURATION = wire.before_seconds("sidecar.upstream.duration")
MAX_IDENTITY = 256
"""Characters of who an upstream is that are told; a SPIFFE ID may have 2048."""


def place_of(attempt: RecordedAttempt) -> bytes:
    """Where it went: the same for all attempts at one endpoint. Replaces the SERVER span's own `server.address`."""
    upstream, facts = attempt.upstream, attempt.facts
    place = wire.text("sidecar.upstream", upstream.encode()) + b"".join(server_of(facts.endpoint, upstream))
    tls = facts.tls
    if tls is not None and tls.identity is not None:
        place += wire.text("sidecar.upstream.identity", tls.identity[:MAX_IDENTITY].encode())
    return place


def joined_fields(record: RecordedExchange, attempt: RecordedAttempt, offset_ns: int) -> list[bytes]:
    """What the SERVER span says of few attempts."""
    sent, fields = record.rewritten_target, []
    if sent is not None:
        fields.append(wire.text("sidecar.upstream.path", redacted_path(sent.partition(b"?")[0])))
    if attempt.waited_seconds:
        fields.append(of_wait(attempt.started, attempt.waited_seconds, offset_ns))
    if attempt.ejected is not None:
        fields.append(of_endpoint(attempt.ejected, offset_ns))
    is_last = len(record.attempts) == 1
    if attempt.upstream != record.fallback and not (is_last and record.fallback is None):
        fields.append(_failure(attempt, offset_ns))
    return fields


def server_of(endpoint: Endpoint | None, upstream: str) -> Iterator[bytes]:
    """Where the upstream is, by the conventions; its name where no address is known."""
    if endpoint is None:
        yield wire.text("server.address", upstream.encode())
    elif endpoint.path is not None:
        yield wire.text("server.address", endpoint.path.encode())
    else:
        yield wire.text("server.address", (endpoint.name or endpoint.host).encode())
        yield wire.number("server.port", endpoint.port)


def _failure(attempt: RecordedAttempt, offset_ns: int) -> bytes:
    """An attempt that did not serve, at its end."""
    told = [
        wire.text("sidecar.upstream", attempt.upstream.encode()),
        wire.seconds("sidecar.upstream.duration", attempt.ended - attempt.started),
        *server_of(attempt.facts.endpoint, attempt.upstream),
    ]
    if attempt.status:
        told.append(wire.number("http.response.status_code", attempt.status))
    if error := client_error_type(attempt.status, attempt.reason, attempt.grpc_status):
        told.append(wire.text("error.type", error.encode()))
    return wire.event("attempt.failed", ns(attempt.ended, offset_ns), told)
