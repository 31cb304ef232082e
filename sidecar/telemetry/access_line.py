"""The line of an exchange that went as usual, as JSON, put together from pieces that are remembered.

Most lines differ from the one before in ids, a path and a few numbers; the rest is written once and looked up. To
make a dictionary of everything and JSON of that, as `log_lines.py` does for all other records, takes more than twice
as long, in a thread that shares the interpreter with the loop. Both say the same, in the same order:
`tests/telemetry/test_access_line.py` holds them against each other. Called by the log's thread alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import orjson

from sidecar.core.client_tls import ClientTls
from sidecar.core.finished import FinishedExchange
from sidecar.core.grpc_status import SERVER_ERRORS, GrpcStatus
from sidecar.core.snapshot import Endpoint
from sidecar.core.transition import State
from sidecar.telemetry.log_lines import iso, visible
from sidecar.telemetry.span_shape import split_target

_REMEMBERED: Final = 1024
"""Pieces of each kind. What clients make up, such as a `User-Agent`, has at most 256 bytes (`core/finished.py`)."""
_NOT_PLAIN: Final = frozenset(b'"\\?;')
"""What JSON escapes, and what begins a query or a parameter, which may hold a secret."""
_AS_PATH: Final = bytes(
    byte if 0x21 <= byte < 0x7F and byte not in _NOT_PLAIN else byte ^ 1 for byte in range(256)
)
"""Translates what stands in a line as it came to itself, and all else to something else."""
_CLOSED: Final = State.CLOSED
"""A member of an Enum costs 50 ns to look up, a global 5."""


def usual_line(record: FinishedExchange, offset_ns: int, worker: str) -> bytes | None:
    """What `as_json(make_line(record, offset_ns), worker)` says; None where something is told that most exchanges
    have not: an error, a fallback, a stranger's request id."""
    grpc_status, tls = record.spoken.grpc_status, record.spoken.tls
    if (
        record.reason is not None
        or record.status >= 500
        or record.detail
        or record.fallback is not None
        or (grpc_status is not None and grpc_status in SERVER_ERRORS)
        or record.untrusted is not None
    ):
        return None
    target, request_id, peer, budget = record.target, record.request_id, record.peer, record.budget
    is_plain = target[:1] == b"/" and target.translate(_AS_PATH) == target
    path, query = (b'"%b"' % target, b"") if is_plain else _path_and_query(target)
    return (
        b'{"time":"%b","level":"info","kind":"access",%b"trace_id":"%b","span_id":"%b","request_id":%b,%b"path":%b,'
        b'"status":%d,"reason":null,"duration_ms":%.3f,"attempts":%d,"request_bytes":%d,"response_bytes":%d,%b%b%b%b%b}\n'
    ) % (
        _time((int(record.ended * 1e9) + offset_ns) // 1_000_000),
        _worker(worker) if worker else b"",
        record.trace_id,
        record.span_id,
        b'"%b"' % request_id if request_id.isalnum() else _quoted(request_id),
        _way(
            record.listener, record.route_name, record.upstream, record.endpoint, record.method, record.host
        ),
        path,
        record.status,
        (record.ended - record.started) * 1000,
        record.attempt_count,
        record.request_bytes,
        record.response_bytes,
        _caller(None if peer is None else peer[0], record.user_agent),
        b"" if tls is None and grpc_status is None else _spoken(tls, grpc_status),
        query,
        _budget(budget.source, round(budget.measured_seconds * 1000)) if budget.source else b"",
        b',"breaker":"closed"' if record.breaker_state is _CLOSED else _breaker(record.breaker_state),
    )


def _path_and_query(target: bytes) -> tuple[bytes, bytes]:
    path, query = split_target(target)
    return _quoted(path), b',"query":%b' % _quoted(query) if query else b""


def _quoted(text: bytes | str | None) -> bytes:
    """As a value of JSON; bytes that are no UTF-8 as U+FFFD."""
    return visible(orjson.dumps(text.decode("utf-8", "replace") if isinstance(text, bytes) else text))


@lru_cache(16)  # lines come in order
def _time(at_ms: int) -> bytes:
    return iso(at_ms * 1_000_000).encode()


@lru_cache(_REMEMBERED)
def _worker(worker: str) -> bytes:
    return b'"worker":%b,' % _quoted(worker)


@lru_cache(_REMEMBERED)
def _way(
    listener: str,
    route: str | None,
    upstream: str | None,
    endpoint: Endpoint | None,
    method: bytes,
    host: bytes,
) -> bytes:
    """From whom to whom, and who was asked for."""
    return b'"listener":%b,"route":%b,"upstream":%b,"endpoint":%b,"method":%b,"host":%b,' % (
        _quoted(listener),
        _quoted(route),
        _quoted(upstream),
        _quoted(None if endpoint is None else str(endpoint)),
        _quoted(method),
        _quoted(host),
    )


@lru_cache(_REMEMBERED)
def _caller(client: str | None, agent: bytes | None) -> bytes:
    return b'"client":%b,"user_agent":%b' % (_quoted(client), _quoted(agent))


@lru_cache(_REMEMBERED)
def _spoken(tls: ClientTls | None, grpc_status: int | None) -> bytes:
    told = b""
    if tls is not None:
        told += b',"tls":%b' % _quoted(tls.protocol)
        if tls.identity:
            told += b',"client_identity":%b' % _quoted(tls.identity)
        if tls.server_name:
            told += b',"server_name":%b' % _quoted(tls.server_name)
    return (
        told if grpc_status is None else told + b',"grpc_status":%b' % _quoted(GrpcStatus(grpc_status).name)
    )


@lru_cache(_REMEMBERED)
def _budget(source: str, milliseconds: int) -> bytes:
    return b',"budget_ms":%d,"budget_source":%b' % (milliseconds, _quoted(source))


def _breaker(state: State | None) -> bytes:
    return b"" if state is None else b',"breaker":%b' % _quoted(state.value)
