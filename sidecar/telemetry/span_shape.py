"""Turns exchanges into spans by the stable HTTP semantic conventions: names, kinds, attributes, status, links.

Runs in the exporting thread. What many exchanges share (route, method, status, ...) is encoded once and
cached; only ids, times, the URL and the budgets are written for each.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Iterator
from functools import lru_cache
from math import floor
from typing import TypeAlias

from sidecar.core.checked import USER_AGENT, Checked
from sidecar.core.client_tls import ClientTls
from sidecar.core.errors import Reason
from sidecar.core.finished import FinishedAttempt, FinishedExchange, Spoken
from sidecar.core.grpc_status import SERVER_ERRORS
from sidecar.core.mirrored import Mirrored
from sidecar.core.numbers import METHODS, client_error_type, server_error_type
from sidecar.core.retry import RetryCause
from sidecar.core.secrets import redacted_path, redacted_query
from sidecar.core.secured import TlsFacts
from sidecar.core.snapshot import Endpoint, Match
from sidecar.core.untrusted import Untrusted
from sidecar.telemetry import wire
from sidecar.telemetry.attributes import ns, of_breaker, of_endpoint, of_wait
from sidecar.telemetry.event_shape import EventShaper
from sidecar.telemetry.joined import MAX_IDENTITY, joined_fields, place_of, server_of
from sidecar.telemetry.spans import EventRecord, TransitionIds

_KNOWN = frozenset(METHODS)
_MAX_CACHED = 4096
"""Of what many exchanges share: words of the configuration, methods, statuses."""
_MAX_OF_CLIENTS = 1024
"""Of what is made of words that clients choose, up to half a kilobyte each: such a table may well fill up."""
_MAX_PEERS = 256
"""Clients whose exchanges are shaped in the same second; each new connection is another."""
MAX_PATH_CHARACTERS = 256
"""Of `http.route`: an expression may be long."""
_SOME_CLIENT = ClientTls()
"""In the place of each client, where all that matters is that there is TLS."""

_URL_PATH, _URL_FULL = wire.before_text("url.path"), wire.before_text("url.full")
_REQUEST_ID, _PEER_PORT = wire.before_text("sidecar.request_id"), wire.key("network.peer.port")
_BUDGET_MS, _USED_MS = wire.numbers("sidecar.deadline.budget_ms"), wire.numbers("sidecar.deadline.used_ms")
_SENT_MS = wire.numbers("sidecar.deadline.sent_ms")
_PARENT_ELSEWHERE, _PARENT_HERE = wire.flags(is_remote=True), wire.flags(is_remote=False)
_clean = wire.clean

_CAUSES = {cause: wire.text("sidecar.retry.reason", cause.value.encode()) for cause in RetryCause}
_HEDGE = wire.text("sidecar.attempt.kind", b"hedge")
_LOST_TO_HEDGE = wire.text("sidecar.cancellation.cause", b"hedge")
"""Another attempt was faster, so this one was ended: unset, and no error."""
_CANCELLED_BY: dict[Reason | None, bytes] = {
    reason: wire.text("sidecar.cancellation.cause", by)
    for reason, by in ((Reason.CLIENT_GONE, b"client"), (Reason.CALLER_GONE, b"caller"))
}
"""What was cut short by somebody above: nobody here or below is to blame, so their spans are no errors."""

_SLASH = 0x2F
_SEMICOLON = 0x3B
"""As numbers: to look for bytes in bytes takes 0.2 µs more than for one of them."""
_ABSOLUTE = re.compile(rb"^https?://[^/?#]*", re.IGNORECASE)


_InCommon: TypeAlias = tuple[Match | None, Endpoint | None, bytes, bool]
"""What keeps the identities in its key alive; what such exchanges say alike; whether that is all, but for what each
has."""


class SpanShaper:
    """Makes encoded spans, each ready to be one field of `ScopeSpans`."""

    def __init__(self, ids: TransitionIds) -> None:
        self._ids = ids
        self._events = EventShaper(ids)
        self._servers: dict[tuple[object, ...], _InCommon] = {}
        self._attempts: dict[tuple[object, ...], tuple[Endpoint | None, bytes, bytes]] = {}

    def exchange_spans(self, record: FinishedExchange, offset_ns: int) -> list[bytes]:
        """The SERVER span of one exchange, then a CLIENT span for each attempt that has an id of its own.

        `offset_ns` is added to a monotonic time to get nanoseconds since the epoch.
        """
        attempts, span_id, target, came = record.attempts, record.span_id, record.target, record.tracestate
        joined = attempts[0] if attempts and attempts[0].span_id == span_id else None
        path, query = split_target(target)
        state = wire.trace_state(came) if came and not isinstance(came, Untrusted) else b""
        fields = self._server_fields(record, joined, path, query, offset_ns)
        fields.append(state)
        spans = [wire.span_of(fields)]
        if joined is None or len(attempts) > 1:
            spans += self._client_spans(record, path, query, state, offset_ns)
        return spans

    def _server_fields(
        self,
        record: FinishedExchange,
        joined: FinishedAttempt | None,
        path: bytes,
        query: bytes,
        offset_ns: int,
    ) -> list[bytes]:
        """The fields of a SERVER span but for its trace state. `joined`: the attempt that it stands for as well."""
        started, ended, budget, agent = record.started, record.ended, record.budget, record.user_agent
        request_id, peer = record.request_id, record.peer
        start_ns, end_ns = floor(started * 1e9) + offset_ns, floor(ended * 1e9) + offset_ns
        if not request_id.isascii():
            request_id = _clean(request_id)
        if not path.isascii():
            path = _clean(path)
        host = b"" if joined is not None else record.host
        _, _, fixed, is_usual = self._in_common(record, joined)
        fields = [
            wire.ids_and_times(record.trace_id, record.span_id, record.parent_id, start_ns, end_ns),
            fixed,
            _REQUEST_ID[len(request_id)],
            request_id,
            _USED_MS[floor((ended - started) * 1000 + 0.5)],
        ]
        if record.target:
            fields += (_URL_PATH[len(path)], path)
        if query:
            fields.append(wire.text("url.query", query))
        if budget.source:
            fields.append(_BUDGET_MS[floor(budget.measured_seconds * 1000 + 0.5)])
        if host or agent:
            fields.append(_ASKED[host, agent])
        if peer is not None:
            fields.append(_PEERS[peer])
        if joined is not None:
            fields += joined_fields(record, joined, offset_ns)
        if not is_usual or record.tripped is not None or isinstance(record.tracestate, Untrusted):
            fields += self._rare(record, path, offset_ns)
        return fields

    def _rare(self, record: FinishedExchange, path: bytes, offset_ns: int) -> Iterator[bytes]:
        """What few exchanges have."""
        method, spoken = record.method, record.spoken
        if method not in _KNOWN:
            yield wire.text("http.request.method_original", method[:32])
        if spoken.tls is not None:
            yield _client_tls(spoken.tls)
        if isinstance(record.tracestate, Untrusted):
            yield from _untrusted(record.tracestate)
        if spoken.grpc_status is not None:
            yield _rpc(path)
        if _may_have_failed(record):
            yield from self._failure_parts(record)
        if record.tripped is not None:
            at_ns = ns(record.tripped.at, offset_ns)
            yield wire.event("circuit_breaker.transition", at_ns, of_breaker(record.tripped))
            yield wire.link(*self._ids.cause_of(record.tripped), is_sampled=True)

    def _in_common(self, record: FinishedExchange, joined: FinishedAttempt | None) -> _InCommon:
        spoken, match, breaker = record.spoken, record.routed[0], record.breaker_state
        method = record.method if record.method in _KNOWN else b"_OTHER"
        if spoken.tls is not None:
            spoken = spoken._replace(tls=_SOME_CLIENT)
        state = "" if breaker is None else breaker._value_
        upstream, endpoint = ("", None) if joined is None else (joined.upstream, joined.endpoint)
        # by identity: hashing a dataclass costs as much as all the rest; the entry keeps both alive
        key = (
            method, record.route_name, id(match), record.listener, spoken, record.status, record.reason,
            record.fallback, state, record.budget.source, upstream, id(endpoint),
        )  # fmt: skip
        entry = self._servers.get(key)
        if entry is None:
            if len(self._servers) >= _MAX_CACHED:
                self._servers.clear()
            fixed = b"".join(_server_fixed(record, method, spoken, state))
            if joined is not None:
                fixed += place_of(joined)
            is_usual = method != b"_OTHER" and spoken[1:] == (None, None) and not _may_have_failed(record)
            entry = self._servers[key] = match, endpoint, fixed, is_usual
        return entry

    def _client_spans(
        self, record: FinishedExchange, path: bytes, query: bytes, state: bytes, offset_ns: int
    ) -> Iterator[bytes]:
        trace_id, span_id, sent = record.trace_id, record.span_id, record.rewritten_target
        sent_path = path if sent is None else redacted_path(sent.partition(b"?")[0])
        for attempt in record.attempts:
            if attempt.span_id == span_id:
                continue  # it was joined with the SERVER span
            authority, parts = self._client_parts(record, attempt)
            url = _clean(_full_url(attempt.scheme, authority or record.host, sent_path, query))
            parts += (_URL_FULL[len(url)], url, state)
            if attempt.resend:
                parts.append(wire.number("http.request.resend_count", attempt.resend))
            if attempt.is_hedge:
                parts.append(_HEDGE)
            elif attempt.cause is not None:
                parts.append(_CAUSES[attempt.cause])
            if not attempt.status and attempt.reason is None:
                parts.append(_LOST_TO_HEDGE)
            if attempt.waited_seconds:
                parts.append(of_wait(attempt.started, attempt.waited_seconds, offset_ns))
            if attempt.ejected is not None:
                parts.append(of_endpoint(attempt.ejected, offset_ns))
            start_ns = floor(attempt.started * 1e9) + offset_ns
            end_ns = floor(attempt.ended * 1e9) + offset_ns
            parts.append(wire.ids_and_times(trace_id, attempt.span_id, span_id, start_ns, end_ns))
            yield wire.span_of(parts)

    def _failure_parts(self, record: FinishedExchange) -> Iterator[bytes]:
        reason = record.reason
        if is_server_error(record.status, reason, record.fallback, record.spoken.grpc_status):
            yield wire.status(wire.ERROR, record.detail.encode() if reason is not None else b"")
        if record.refused_by is not None:
            yield wire.link(*self._ids.cause_of(record.refused_by), is_sampled=True)

    def _client_parts(self, record: FinishedExchange, attempt: FinishedAttempt) -> tuple[bytes, list[bytes]]:
        """The authority for `url.full` (empty: use Host), and what stands in a CLIENT span besides it."""
        method = record.method
        authority, fixed = self._client_fixed(method, record.route_name, attempt)
        parts = [fixed]
        if record.spoken.grpc_status is not None:
            parts.append(_rpc(split_target(record.target)[0]))
        if method not in _KNOWN:
            parts.append(wire.text("http.request.method_original", method[:32]))
        if attempt.sent_ms is not None:
            parts.append(_SENT_MS[attempt.sent_ms])
        return authority, parts

    def _client_fixed(
        self, method: bytes, route: str | None, attempt: FinishedAttempt | Checked | Mirrored
    ) -> tuple[bytes, bytes]:
        """The endpoint's authority for `url.full` (empty: use Host), and what attempts like this have in common."""
        known = method if method in _KNOWN else b"_OTHER"
        endpoint = attempt.endpoint
        # by identity: hashing the dataclass costs as much as all the rest; the entry keeps the endpoint alive
        key = (
            known, route, attempt.upstream, id(endpoint), attempt.status, attempt.reason, attempt.http_version,
            attempt.grpc_status, attempt.scheme, attempt.tls,
        )  # fmt: skip
        entry = self._attempts.get(key)
        if entry is None:
            if len(self._attempts) >= _MAX_CACHED:
                self._attempts.clear()
            authority = b"" if endpoint is None or endpoint.path is not None else _authority(endpoint)
            fixed = _client_fixed(known, route, attempt)
            entry = self._attempts[key] = (endpoint, authority, fixed)
        return entry[1], entry[2]

    def event_spans(self, record: EventRecord, offset_ns: int) -> list[bytes]:
        """The spans of a transition (an outage has many, or none yet), of a reload, or of a check."""
        if isinstance(record, Checked):
            return [self._check_span(record, offset_ns)]
        if isinstance(record, Mirrored):
            return [self._copy_span(record, offset_ns)]
        return self._events.spans(record, offset_ns)

    def _copy_span(self, copy: Mirrored, offset_ns: int) -> bytes:
        """A CLIENT span that is the root of its trace, linked to the SERVER span of the request."""
        authority, fixed = self._client_fixed(copy.method, copy.route, copy)
        path, query = split_target(copy.target)
        parts = [
            fixed,
            wire.text("url.full", _full_url(copy.scheme, authority or copy.host, path, query)),
            wire.text("sidecar.mirror.outcome", copy.outcome.value.encode()),
            wire.link(unhexlify(copy.of_trace_id), unhexlify(copy.of_span_id)),
        ]
        trace_id, span_id = unhexlify(copy.trace_id), unhexlify(copy.span_id)
        times = int(copy.started * 1e9) + offset_ns, int(copy.ended * 1e9) + offset_ns
        return wire.span(trace_id, span_id, b"", *times, parts)

    def _check_span(self, checked: Checked, offset_ns: int) -> bytes:
        """A CLIENT span that is the root of its trace: no exchange asked for it."""
        authority, fixed = self._client_fixed(b"GET", checked.route, checked)
        parts = [
            fixed,
            wire.text(
                "url.full", _full_url(checked.scheme, authority, redacted_path(checked.path.encode()), b"")
            ),
            wire.text("user_agent.original", USER_AGENT.encode()),
        ]
        trace_id, span_id = unhexlify(checked.trace_id), unhexlify(checked.span_id)
        times = int(checked.started * 1e9) + offset_ns, int(checked.ended * 1e9) + offset_ns
        return wire.span(trace_id, span_id, b"", *times, parts)


def _may_have_failed(record: FinishedExchange) -> bool:
    return bool(record.spoken.grpc_status) or record.status >= 500 or record.reason is not None


def is_server_error(
    status: int, reason: Reason | None, fallback: str | None, grpc_status: int | None = None
) -> bool:
    """Whether a SERVER span's status is ERROR: a 5xx, or an answer that the sidecar cut short. For a gRPC call its
    own status tells, whoever set it: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS.

    A 4xx is the client's fault and leaves it unset, as the conventions demand; so does a fallback that
    served. What was cancelled is nobody's fault here: a client that left, or the one that the call was made for.
    """
    if reason in _CANCELLED_BY:
        return False
    if grpc_status is not None:
        return grpc_status in SERVER_ERRORS
    if status >= 500:
        return True
    return reason is not None and fallback is None and status < 400


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """The path and the query, both with secrets redacted, of a request target in any form."""
    if not target or target[0] != _SLASH:
        target = _ABSOLUTE.sub(b"", target, count=1) or b"/"
    path, _, query = target.partition(b"?")
    return redacted_path(path) if _SEMICOLON in path else path, redacted_query(query) if query else query


def _full_url(scheme: str, authority: bytes, path: bytes, query: bytes) -> bytes:
    start = b"http://" if scheme == "http" else b"https://"
    return b"%b%b%b?%b" % (start, authority, path, query) if query else b"%b%b%b" % (start, authority, path)


def _tls_attributes(tls: TlsFacts) -> Iterator[bytes]:
    """As the conventions have them, and who the other side has proved to be."""
    yield wire.text("tls.protocol.name", b"tls")
    yield wire.text("tls.protocol.version", tls.version.encode())
    yield wire.text("tls.cipher", tls.cipher.encode())
    if tls.alpn is not None:
        yield wire.text("tls.next_protocol", tls.alpn.encode())
    if tls.identity is not None:
        yield wire.text("sidecar.upstream.identity", tls.identity[:MAX_IDENTITY].encode())


def _path_of(match: Match | None) -> str:
    """What the configuration asks of a path, in its own words; empty where it asks nothing of it."""
    path = None if match is None else match.path_asked()
    return "" if path is None else path.value[:MAX_PATH_CHARACTERS]


def _server_fixed(record: FinishedExchange, method: bytes, spoken: Spoken, state: str) -> Iterator[bytes]:
    """Of words of the configuration, and of what is one of a few."""
    verb = "HTTP" if method == b"_OTHER" else method.decode()
    route, reason = record.route_name, record.reason
    yield _PARENT_ELSEWHERE
    yield wire.name_and_kind(f"{verb} {route}" if route is not None else verb, wire.SERVER)
    yield wire.text("http.request.method", method)
    yield wire.text("url.scheme", b"http" if spoken.tls is None else b"https")
    yield wire.text("network.protocol.version", spoken.http_version.encode())
    yield wire.text("sidecar.listener", record.listener.encode())
    if spoken.grpc_status is not None:
        yield wire.number("rpc.grpc.status_code", spoken.grpc_status)
    if route is not None:
        yield wire.text("sidecar.route", route.encode())
    if path := _path_of(record.match):
        yield wire.text("http.route", path.encode())
    if reason is not Reason.CLIENT_GONE and record.status:  # 499 was never sent
        yield wire.number("http.response.status_code", record.status)
    if error := server_error_type(record.status, reason, spoken.grpc_status):
        yield wire.text("error.type", error.encode())
    if record.fallback is not None:
        yield wire.text("sidecar.fallback", record.fallback.encode())
    if reason in _CANCELLED_BY:
        yield _CANCELLED_BY[reason]
    if state:
        yield wire.text("sidecar.circuit_breaker.state", state.encode())
    if record.budget.source:
        yield wire.text("sidecar.deadline.source", record.budget.source.encode())


def _client_fixed(method: bytes, route: str | None, attempt: FinishedAttempt | Checked | Mirrored) -> bytes:
    upstream, status = attempt.upstream, attempt.status
    parts = [
        _PARENT_HERE,
        wire.name_and_kind(f"{'HTTP' if method == b'_OTHER' else method.decode()} {upstream}", wire.CLIENT),
        wire.text("http.request.method", method),
        wire.text("url.scheme", attempt.scheme.encode()),
        wire.text("sidecar.upstream", upstream.encode()),
        *_endpoint_attributes(attempt.endpoint, upstream),
    ]
    if attempt.tls is not None:
        parts += _tls_attributes(attempt.tls)
    if route is not None:
        parts.append(wire.text("sidecar.route", route.encode()))
    if status:
        parts.append(wire.text("network.protocol.version", attempt.http_version.encode()))
        parts.append(wire.number("http.response.status_code", status))
    if attempt.grpc_status is not None:
        parts.append(wire.number("rpc.grpc.status_code", attempt.grpc_status))
    if error := client_error_type(status, attempt.reason, attempt.grpc_status):
        parts.append(wire.text("error.type", error.encode()))
        parts.append(_CANCELLED_BY.get(attempt.reason) or wire.status(wire.ERROR))
    return b"".join(parts)


@lru_cache(maxsize=_MAX_OF_CLIENTS)
def _rpc(path: bytes) -> bytes:
    """What a gRPC call asks for (`/pkg.Service/Method`), by its path, which is free of secrets."""
    service, _, method = path[1:].rpartition(b"/")
    parts = [wire.text("rpc.system", b"grpc"), wire.text("rpc.method", method)]
    if service:
        parts.append(wire.text("rpc.service", service))
    return b"".join(parts)


def _authority(endpoint: Endpoint) -> bytes:
    name = endpoint.name
    return (str(endpoint) if name is None else f"{name}:{endpoint.port}").encode()


def _endpoint_attributes(endpoint: Endpoint | None, upstream: str) -> Iterator[bytes]:
    yield from server_of(endpoint, upstream)
    if endpoint is None:
        return
    if endpoint.path is not None:
        yield wire.text("network.peer.address", endpoint.path.encode())
        yield wire.text("network.transport", b"unix")
    elif endpoint.is_literal:
        yield wire.text("network.peer.address", endpoint.host.encode())
        yield wire.number("network.peer.port", endpoint.port)


def _asked(key: tuple[bytes, bytes | None]) -> bytes:
    """What a client says of whom it asks (the Host), and with what (`User-Agent`)."""
    host, agent = key
    parts = []
    name, colon, port = host.rpartition(b":")
    if not colon or not port.isdigit():
        name, port = host, b""
    if name:
        parts.append(wire.text("server.address", name.strip(b"[]")))
    if port:
        parts.append(wire.number("server.port", int(port[:5])))
    if agent:
        parts.append(wire.text("user_agent.original", agent))
    return b"".join(parts)


def _untrusted(came: Untrusted) -> Iterator[bytes]:
    """A link to a stranger's trace, and what else was not believed."""
    if came.trace_id:
        yield wire.link(unhexlify(came.trace_id), unhexlify(came.span_id), is_remote=True)
    for name, value in (
        ("sidecar.untrusted.request_id", came.request_id),
        ("sidecar.untrusted.tracestate", came.tracestate),
        ("sidecar.untrusted.baggage", came.baggage),
    ):
        if value:
            yield wire.text(name, value)


@lru_cache(maxsize=_MAX_OF_CLIENTS)
def _client_tls(tls: ClientTls) -> bytes:
    """Cached, as a client sends many exchanges by one connection. Names by the conventions, but for the identity."""
    parts = [wire.text("tls.protocol.name", b"tls"), wire.text("tls.protocol.version", tls.protocol.encode())]
    if tls.server_name:
        parts.append(wire.text("tls.client.server_name", tls.server_name.encode()))
    if tls.identity:
        parts.append(wire.text("sidecar.client.identity", tls.identity.encode("utf-8", "replace")))
    return b"".join(parts)


def _peer(peer: tuple[str, int]) -> bytes:
    address, port = peer
    return (
        wire.text("client.address", address.encode())
        + wire.text("network.peer.address", address.encode())
        + (wire.number_of(_PEER_PORT, port) if port else b"")  # of one within the process there is none
    )


_ASKED = wire.Memo(_asked, _MAX_OF_CLIENTS)
_PEERS = wire.Memo(_peer, _MAX_PEERS)
"""A client sends many exchanges by one connection."""
