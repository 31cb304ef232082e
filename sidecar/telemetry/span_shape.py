"""Turns exchanges into spans by the stable HTTP semantic conventions: names, kinds, attributes, status, links.

Runs in the exporting thread. What many exchanges share (route, method, status, ...) is encoded once and
cached; only ids, times, the URL and the budgets are written for each.
"""

from __future__ import annotations

import re
import struct
from binascii import unhexlify
from collections.abc import Iterator
from functools import lru_cache
from math import floor
from typing import TypeAlias

from sidecar.core.checked import USER_AGENT, Checked
from sidecar.core.client_tls import ClientTls
from sidecar.core.endpoint_facts import EndpointFacts
from sidecar.core.errors import Reason
from sidecar.core.grpc_status import SERVER_ERRORS
from sidecar.core.mirrored import Mirrored
from sidecar.core.numbers import METHODS, client_error_type, server_error_type
from sidecar.core.recorded import AttemptFields, ExchangeFields, RecordedAttempt, RecordedExchange
from sidecar.core.retry import RetryCause
from sidecar.core.secrets import redacted_path, redacted_query
from sidecar.core.secured import TlsFacts
from sidecar.core.snapshot import Endpoint, Match
from sidecar.core.sources import ReloadReport
from sidecar.core.untrusted import Untrusted
from sidecar.telemetry import wire
from sidecar.telemetry.attributes import ns, of_breaker, of_endpoint, of_wait
from sidecar.telemetry.event_shape import EventShaper
from sidecar.telemetry.joined import DURATION, MAX_IDENTITY, joined_fields, place_of, server_of
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
_URL_PATH, _URL_FULL = wire.before_text("url.path"), wire.before_text("url.full")
_REQUEST_ID, _PEER_PORT = wire.before_text("sidecar.request_id"), wire.key("network.peer.port")
_BUDGET_MS, _USED_MS = wire.numbers("sidecar.deadline.budget_ms"), wire.numbers("sidecar.deadline.used_ms")
_SENT_MS = wire.numbers("sidecar.deadline.sent_ms")
_PARENT_ELSEWHERE, _PARENT_HERE = wire.flags(is_remote=True), wire.flags(is_remote=False)
_clean, _times = wire.clean, wire.TIMES
_times_and_duration = struct.Struct(f"<BQBQ{len(DURATION)}sd").pack

_CAUSES = {cause: wire.text("sidecar.retry.reason", cause.value.encode()) for cause in RetryCause}
_HEDGE = wire.text("sidecar.attempt.kind", b"hedge")
_LOST_TO_HEDGE = wire.text("sidecar.cancellation.cause", b"hedge")
"""Another attempt was faster, so this one was ended: unset, and no error."""
_CANCELLED_BY: dict[Reason | None, bytes] = {
    reason: wire.text("sidecar.cancellation.cause", by)
    for reason, by in ((Reason.CLIENT_GONE, b"client"), (Reason.CALLER_GONE, b"caller"))
}
"""What was cut short by somebody above: nobody here or below is to blame, so their spans are no errors."""

_SCHEMES = {"http": b"http://", "https": b"https://"}
_SPAN_ID = RecordedAttempt._fields.index("span_id")
_SLASH = 0x2F
_SEMICOLON = 0x3B
_QUESTION_MARK = 0x3F
"""As numbers: to look for bytes in bytes takes 0.2 µs more than for one of them."""
_ABSOLUTE = re.compile(rb"^https?://[^/?#]*", re.IGNORECASE)


_InCommon: TypeAlias = tuple[Match | None, bytes, bool]
"""What keeps the identity in its key alive; what such exchanges say alike; whether that is all, but for what each
has."""
_AttemptsKey: TypeAlias = tuple[bytes, str | None, str, EndpointFacts, int, Reason | None, int | None]
"""Method and route; of the attempt its upstream, its endpoint's facts, status, reason and gRPC status."""
_AttemptsInCommon: TypeAlias = tuple[bytes, bytes, bool]
"""Of attempts, what `url.full` begins with (empty: by the Host); then the same."""


class SpanShaper:
    """Makes encoded spans, each ready to be one field of `ScopeSpans`."""

    def __init__(self, ids: TransitionIds) -> None:
        self._ids = ids
        self._events = EventShaper(ids)
        self._servers: dict[tuple[object, ...], _InCommon] = {}
        self._attempts: dict[_AttemptsKey, _AttemptsInCommon] = {}

    def exchange_spans(self, record: ExchangeFields, offset_ns: int) -> list[bytes]:
        """The SERVER span of one exchange, then a CLIENT span for each attempt that has an id of its own.

        `offset_ns` is added to a monotonic time to get nanoseconds since the epoch.

        What nearly all have is here in one piece: by calls, and by a list that grows, it took a quarter more
        instructions.
        """
        (
            trace_id, span_id, parent_id, state, untrusted, request_id, listener, route, match, method, target, sent,
            host, agent, peer, spoken, started, ended, status, reason, _, budget, breaker, fallback, _, tripped,
            attempts,
        ) = record  # fmt: skip
        joined = attempts[0] if attempts and attempts[0][_SPAN_ID] == span_id else None
        upstream: str | None = None
        facts: EndpointFacts | None = None
        if joined is not None:
            upstream, facts, _, began, finished, _, _, ejected, _, _, waited_seconds, sent_ms, _ = joined
        # `match` by its identity: to hash a dataclass costs as much as all the rest; the entry keeps it alive
        key = (
            method, route, id(match), listener, spoken if spoken[2] is None else (spoken[0], spoken[1], True), status,
            reason, fallback, None if breaker is None else breaker._value_, budget.source, upstream, facts,
        )  # fmt: skip
        common = self._servers.get(key) or self._server_common(key, RecordedExchange(*record), joined)
        path, query = target, b""
        if not target or target[0] != _SLASH or _QUESTION_MARK in target or _SEMICOLON in target:
            path, query = split_target(target)
        if not path.isascii():
            path = _clean(path)
        if not request_id.isascii():
            request_id = _clean(request_id)
        if state:
            state = wire.trace_state(state)
        if parent_id:
            ids = b"".join((b"0a10", trace_id, b"1208", span_id, b"2208", parent_id))
        else:
            ids = b"".join((b"0a10", trace_id, b"1208", span_id))
        more = state
        start_ns, end_ns = floor(started * 1e9) + offset_ns, floor(ended * 1e9) + offset_ns
        if joined is None:
            times, sent_ms = _times(0x39, start_ns, 0x41, end_ns), None
        else:
            host = b""
            took = floor((finished - began) * 1e6 + 0.5) / 1e6  # as `wire.fraction`
            times = _times_and_duration(0x39, start_ns, 0x41, end_ns, DURATION, took)
            if (
                sent is not None
                or waited_seconds
                or ejected is not None
                or fallback is not None
                or len(attempts) > 1
            ):
                more += b"".join(
                    joined_fields(RecordedExchange(*record), RecordedAttempt(*joined), offset_ns)
                )
        if query:
            more += wire.text("url.query", query)
        if not common[2] or tripped is not None or untrusted is not None:
            more += b"".join(self._rare(record, path, offset_ns))
        payload = b"".join(
            (
                unhexlify(ids),
                times,
                common[1],
                _REQUEST_ID[len(request_id)],
                request_id,
                _USED_MS[floor((ended - started) * 1000 + 0.5)],
                _URL_PATH[len(path)] if target else b"",
                path if target else b"",
                _BUDGET_MS[floor(budget.measured_seconds * 1000 + 0.5)] if budget.source else b"",
                _ASKED[host, agent] if host or agent else b"",
                b"" if peer is None else _PEERS[peer],
                b"" if sent_ms is None else _SENT_MS[sent_ms],
                more,
            )
        )
        spans = [wire.framed(payload)]
        if joined is None or len(attempts) > 1:
            spans += self._client_spans(record, path, query, state, offset_ns)
        return spans

    def _rare(self, record: ExchangeFields, path: bytes, offset_ns: int) -> Iterator[bytes]:
        """What few exchanges have."""
        (
            _, _, _, _, untrusted, _, _, _, _, method, _, _, _, _, _, (_, grpc_status, tls), _, _, status, reason, _,
            _, _, _, _, tripped, _,
        ) = record  # fmt: skip
        if method not in _KNOWN:
            yield wire.text("http.request.method_original", method[:32])
        if tls is not None:
            yield _client_tls(tls)
        if untrusted is not None:
            yield from _untrusted(untrusted)
        if grpc_status is not None:
            yield _rpc(path)
        if _may_have_failed(status, reason, grpc_status):
            yield from self._failure_parts(RecordedExchange(*record))
        if tripped is not None:
            yield wire.event("circuit_breaker.transition", ns(tripped.at, offset_ns), of_breaker(tripped))
            yield wire.link(*self._ids.cause_of(tripped), is_sampled=True)

    def _server_common(
        self, key: tuple[object, ...], record: RecordedExchange, joined: AttemptFields | None
    ) -> _InCommon:
        """What such exchanges have in common: a new entry, unless a client made its method up."""
        method = record.method
        if method not in _KNOWN:
            method = b"_OTHER"
            key = (method, *key[1:])
            known = self._servers.get(key)
            if known is not None:
                return known
        if len(self._servers) >= _MAX_CACHED:
            self._servers.clear()
        fixed = b"".join(_server_fixed(record, method))
        if joined is not None:
            fixed += place_of(RecordedAttempt(*joined))
        spoken = record.spoken
        has_failed = _may_have_failed(record.status, record.reason, spoken.grpc_status)
        is_usual = method != b"_OTHER" and spoken[1:] == (None, None) and not has_failed
        entry = self._servers[key] = record.match, fixed, is_usual
        return entry

    def _client_spans(
        self, record: ExchangeFields, path: bytes, query: bytes, state: bytes, offset_ns: int
    ) -> list[bytes]:
        """As above, in one piece for what nearly all have. `path` and `query` are free of secrets."""
        (
            trace_id, span_id, _, _, _, _, _, route, _, method, _, sent, host, _, _, spoken, _, _, _, _, _, _, _, _,
            _, _, attempts,
        ) = record  # fmt: skip
        if sent is not None:
            path = redacted_path(sent.partition(b"?")[0])
        if query:
            path = b"%b?%b" % (path, query)
        spans = []
        for attempt in attempts:
            (
                upstream, facts, own_id, began, finished, status, reason, ejected, resend, cause, waited_seconds,
                sent_ms, grpc_status,
            ) = attempt  # fmt: skip
            if own_id == span_id:
                continue  # it was joined with the SERVER span
            key = (method, route, upstream, facts, status, reason, grpc_status)
            common = self._attempts.get(key) or self._client_common(key, RecordedAttempt(*attempt))
            origin, fixed, is_usual = common
            url = origin + path if origin else b"%b%b%b" % (_SCHEMES[facts.scheme], host, path)
            if not url.isascii():
                url = _clean(url)
            more = state
            if (
                not is_usual
                or resend
                or cause is not None
                or waited_seconds
                or ejected is not None
                or spoken[1] is not None
            ):
                more += b"".join(
                    _rare_of_attempt(RecordedExchange(*record), RecordedAttempt(*attempt), offset_ns)
                )
            payload = b"".join(
                (
                    unhexlify(b"".join((b"0a10", trace_id, b"1208", own_id, b"2208", span_id))),
                    _times(0x39, floor(began * 1e9) + offset_ns, 0x41, floor(finished * 1e9) + offset_ns),
                    fixed,
                    b"" if sent_ms is None else _SENT_MS[sent_ms],
                    _URL_FULL[len(url)],
                    url,
                    more,
                )
            )
            spans.append(wire.framed(payload))
        return spans

    def _client_common(self, key: _AttemptsKey, attempt: RecordedAttempt) -> _AttemptsInCommon:
        """As `_server_common`."""
        method, route = key[:2]
        if method not in _KNOWN:
            method = b"_OTHER"
            key = (method, *key[1:])
            known = self._attempts.get(key)
            if known is not None:
                return known
        if len(self._attempts) >= _MAX_CACHED:
            self._attempts.clear()
        facts = attempt.facts
        authority = _authority(facts.endpoint)
        origin = _SCHEMES[facts.scheme] + authority if authority else b""
        is_usual = method != b"_OTHER" and bool(attempt.status or attempt.reason is not None)
        fixed = _client_fixed(method, route, attempt, facts)
        entry = self._attempts[key] = origin, fixed, is_usual
        return entry

    def _failure_parts(self, record: RecordedExchange) -> Iterator[bytes]:
        reason = record.reason
        if is_server_error(record.status, reason, record.fallback, record.spoken.grpc_status):
            yield wire.status(wire.ERROR, record.detail.encode() if reason is not None else b"")
        if record.refused_by is not None:
            yield wire.link(*self._ids.cause_of(record.refused_by), is_sampled=True)

    def event_spans(self, record: EventRecord, offset_ns: int) -> list[bytes]:
        """The spans of a transition (an outage has many, or none yet), of a reload, or of a check."""
        if isinstance(record, Checked):
            return [self._check_span(record, offset_ns)]
        if isinstance(record, Mirrored):
            return [self._copy_span(record, offset_ns)]
        if isinstance(record, ReloadReport):
            self._forget()
        return self._events.spans(record, offset_ns)

    def _forget(self) -> None:
        """A reload makes each match anew: what is known of the ones before would not be asked for again, and keeps
        them alive."""
        self._servers.clear()
        self._attempts.clear()

    def _copy_span(self, copy: Mirrored, offset_ns: int) -> bytes:
        """A CLIENT span that is the root of its trace, linked to the SERVER span of the request."""
        method = copy.method if copy.method in _KNOWN else b"_OTHER"
        facts = EndpointFacts(copy.endpoint, copy.http_version, copy.scheme, copy.tls)
        path, query = split_target(copy.target)
        url = _full_url(copy.scheme, _authority(copy.endpoint) or copy.host, path, query)
        parts = [
            _client_fixed(method, copy.route, copy, facts),
            wire.text("url.full", url),
            wire.text("sidecar.mirror.outcome", copy.outcome.value.encode()),
            wire.link(unhexlify(copy.of_trace_id), unhexlify(copy.of_span_id)),
        ]
        trace_id, span_id = unhexlify(copy.trace_id), unhexlify(copy.span_id)
        times = int(copy.started * 1e9) + offset_ns, int(copy.ended * 1e9) + offset_ns
        return wire.span(trace_id, span_id, b"", *times, parts)

    def _check_span(self, checked: Checked, offset_ns: int) -> bytes:
        """A CLIENT span that is the root of its trace: no exchange asked for it."""
        path = redacted_path(checked.path.encode())
        facts = EndpointFacts(checked.endpoint, checked.http_version, checked.scheme, checked.tls)
        parts = [
            _client_fixed(b"GET", checked.route, checked, facts),
            wire.text("url.full", _full_url(checked.scheme, _authority(checked.endpoint), path, b"")),
            wire.text("user_agent.original", USER_AGENT.encode()),
        ]
        trace_id, span_id = unhexlify(checked.trace_id), unhexlify(checked.span_id)
        times = int(checked.started * 1e9) + offset_ns, int(checked.ended * 1e9) + offset_ns
        return wire.span(trace_id, span_id, b"", *times, parts)


def _rare_of_attempt(record: RecordedExchange, attempt: RecordedAttempt, offset_ns: int) -> Iterator[bytes]:
    """What few CLIENT spans have."""
    if record.spoken.grpc_status is not None:
        yield _rpc(split_target(record.target)[0])
    if record.method not in _KNOWN:
        yield wire.text("http.request.method_original", record.method[:32])
    if attempt.resend:
        yield wire.number("http.request.resend_count", attempt.resend)
    if attempt.cause is RetryCause.HEDGE:
        yield _HEDGE
    elif attempt.cause is not None:
        yield _CAUSES[attempt.cause]
    if not attempt.status and attempt.reason is None:
        yield _LOST_TO_HEDGE
    if attempt.waited_seconds:
        yield of_wait(attempt.started, attempt.waited_seconds, offset_ns)
    if attempt.ejected is not None:
        yield of_endpoint(attempt.ejected, offset_ns)


def _may_have_failed(status: int, reason: Reason | None, grpc_status: int | None) -> bool:
    return bool(grpc_status) or status >= 500 or reason is not None


def is_server_error(
    status: int, reason: Reason | None, fallback: str | None, grpc_status: int | None = None
) -> bool:
    """Whether a SERVER span's status is ERROR: a 5xx, or an answer that the sidecar cut short. For a gRPC call its
    own status tells too, whoever set it: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and
    DATA_LOSS.

    A 4xx is the client's fault and leaves it unset, as the conventions demand; so does a fallback that
    served. What was cancelled is nobody's fault here: a client that left, or the one that the call was made for.
    """
    if reason in _CANCELLED_BY:
        return False
    if status >= 500:
        return True
    if grpc_status is not None:
        return grpc_status in SERVER_ERRORS
    return reason is not None and fallback is None and status < 400


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """The path and the query, both with secrets redacted, of a request target in any form."""
    if not target or target[0] != _SLASH:
        target = _ABSOLUTE.sub(b"", target, count=1) or b"/"
    path, _, query = target.partition(b"?")
    return redacted_path(path) if _SEMICOLON in path else path, redacted_query(query) if query else query


def _full_url(scheme: str, authority: bytes, path: bytes, query: bytes) -> bytes:
    start = _SCHEMES[scheme]
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


def _server_fixed(record: RecordedExchange, method: bytes) -> Iterator[bytes]:
    """Of words of the configuration, and of what is one of a few."""
    verb = "HTTP" if method == b"_OTHER" else method.decode()
    route, reason, spoken, state = record.route_name, record.reason, record.spoken, record.breaker_state
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
    if state is not None:
        yield wire.text("sidecar.circuit_breaker.state", state.value.encode())
    if record.budget.source:
        yield wire.text("sidecar.deadline.source", record.budget.source.encode())


def _client_fixed(
    method: bytes, route: str | None, attempt: RecordedAttempt | Checked | Mirrored, facts: EndpointFacts
) -> bytes:
    upstream, status = attempt.upstream, attempt.status
    parts = [
        _PARENT_HERE,
        wire.name_and_kind(f"{'HTTP' if method == b'_OTHER' else method.decode()} {upstream}", wire.CLIENT),
        wire.text("http.request.method", method),
        wire.text("url.scheme", facts.scheme.encode()),
        wire.text("sidecar.upstream", upstream.encode()),
        *_endpoint_attributes(facts.endpoint, upstream),
    ]
    if facts.tls is not None:
        parts += _tls_attributes(facts.tls)
    if route is not None:
        parts.append(wire.text("sidecar.route", route.encode()))
    if status:
        parts.append(wire.text("network.protocol.version", facts.http_version.encode()))
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


def _authority(endpoint: Endpoint | None) -> bytes:
    """For `url.full`; empty where there is none."""
    if endpoint is None or endpoint.path is not None:
        return b""
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
