"""A reason → an answer. The only place where an error becomes HTTP (SPEC 4).

`Proxy-Status` is RFC 9209, the body is a problem document by RFC 9457. Pure: returns head and body, the client's
stream writes them.
"""

from __future__ import annotations

import json
import math
from typing import Final

from sidecar.core.actions.fields import static
from sidecar.core.contract import SLOTTED
from sidecar.core.errors import Reason
from sidecar.core.head import NOTHING, Added, Own, ResponseHead, own_answer
from sidecar.core.path_dataclass import dataclass
from sidecar.core.snapshot import FallbackPolicy
from sidecar.forwarding import date, grpc
from sidecar.forwarding.own_fields import UNCHANGED, OwnFields


@dataclass(frozen=True, **SLOTTED)
class Row:
    """One row of the table of answers."""

    status: int
    proxy_error: str
    """RFC 9209 2.3."""
    title: str


TABLE = {
    Reason.CIRCUIT_OPEN: Row(503, "destination_unavailable", "Circuit breaker open"),
    Reason.OVERLOADED: Row(503, "connection_limit_reached", "Limits reached"),
    Reason.DEADLINE_EXCEEDED: Row(504, "http_response_timeout", "No time left"),
    Reason.TIMEOUT: Row(504, "http_response_timeout", "Upstream too slow"),
    Reason.CONNECTION_TIMEOUT: Row(504, "connection_timeout", "Upstream did not accept in time"),
    Reason.CONNECTION_REFUSED: Row(502, "connection_refused", "Upstream refused the connection"),
    Reason.DNS_ERROR: Row(502, "dns_error", "Upstream name not found"),
    Reason.CONNECTION_RESET: Row(502, "connection_terminated", "Upstream closed the connection"),
    Reason.INCOMPLETE_RESPONSE: Row(502, "http_response_incomplete", "Incomplete upstream response"),
    Reason.PROTOCOL_ERROR: Row(502, "http_protocol_error", "Malformed upstream response"),
    Reason.TLS_CERTIFICATE: Row(502, "tls_certificate_error", "Upstream's certificate refused"),
    Reason.TLS_PROTOCOL: Row(502, "tls_protocol_error", "TLS to the upstream failed"),
    Reason.TLS_ALERT: Row(502, "tls_alert_received", "TLS refused by the upstream"),
    Reason.NO_ROUTE: Row(404, "destination_not_found", "No route"),
    Reason.CLOSED_ADDRESS: Row(403, "destination_ip_prohibited", "Address not open to callers"),
    Reason.DNS_TIMEOUT: Row(504, "dns_timeout", "Upstream name not found in time"),
    Reason.BAD_REQUEST: Row(400, "http_request_error", "Malformed request"),
    Reason.HEAD_TOO_LARGE: Row(431, "http_request_error", "Request header fields too large"),
    Reason.URL_TOO_LONG: Row(414, "http_request_error", "Request target too long"),
    Reason.REQUEST_TIMEOUT: Row(408, "http_request_error", "Request took too long to arrive"),
    Reason.MISDIRECTED: Row(421, "http_request_denied", "Misdirected request"),
    Reason.CLIENT_DENIED: Row(403, "http_request_denied", "Client not served"),
    Reason.BODY_TOO_LARGE: Row(413, "http_request_error", "Request body too large"),
    Reason.LOOP: Row(508, "proxy_loop_detected", "Loop detected"),
    Reason.DRAINING: Row(503, "destination_unavailable", "Shutting down"),
    Reason.CALLER_GONE: Row(503, "connection_terminated", "Caller gone"),
    Reason.METHOD_NOT_ALLOWED: Row(405, "http_request_error", "Method not supported"),
    Reason.NOT_IMPLEMENTED: Row(501, "http_request_error", "Transfer coding not supported"),
    Reason.VERSION_NOT_SUPPORTED: Row(505, "http_request_error", "HTTP version not supported"),
}
"""CLIENT_GONE is missing: there is nobody left to answer."""

FINAL_RECIPIENT: Final = "max_forwards"
"""The details of an answer to a request that may go no further; it is no error."""
_UNQUOTABLE = {ord("\\"): "\\\\", ord('"'): '\\"'} | dict.fromkeys((*range(32), 127), " ")


@dataclass(**SLOTTED)
class OwnAnswer:
    """A whole answer of the sidecar's own."""

    head: ResponseHead
    body: bytes

    @property
    def status(self) -> int:
        return self.head.status


def proxy_status(reason: Reason, detail: str, fallback: str | None = None) -> bytes:
    """The value of `Proxy-Status`; with what served instead, if a fallback did.

    The details begin with the token of `error.type`: by it another sidecar tells an open breaker from a failure. The
    words for an app whose caller has left are fixed (SPEC 5.4).
    """
    if fallback:
        text = f"fallback={fallback}; {reason.value}: {detail}"
    elif reason is Reason.CALLER_GONE or detail == reason.error_type:
        text = detail
    else:
        text = f"{reason.error_type}: {detail}"
    quoted = text.translate(_UNQUOTABLE).encode("ascii", "replace")
    return b'sidecar; error=%b; details="%b"' % (TABLE[reason].proxy_error.encode(), quoted)


def answer(
    reason: Reason,
    detail: str,
    *,
    request_id: bytes,
    date_line: bytes,
    route: str | None,
    retry_after_seconds: float = 0.0,
    is_grpc: bool = False,
    is_stranger: bool = False,
    fallback: FallbackPolicy | None = None,
    fields: OwnFields = UNCHANGED,
) -> OwnAnswer:
    """What the client gets for `reason`. `fields`: what the route changes in it; values with variables are not here.

    A stranger hears the reason alone (SPEC 5.6): no address, breaker or route of the inside. The log has the rest.
    `Retry-After` is whole seconds, rounded up, so that a client that obeys it does not come too early. Fields of a
    `fallback` that hold variables are for `acting.py` to add.
    """
    row = TABLE[reason]
    served_by = "response" if fallback else None
    if is_stranger:
        detail, route, served_by = reason.error_type, None, None
    own = [
        b"Proxy-Status: ", proxy_status(reason, detail, served_by), b"\r\n",
        b"x-request-id: ", request_id, b"\r\nVia: 1.1 sidecar\r\n",
    ]  # fmt: skip
    if fallback is not None:
        return _fallback(fallback, own, date_line, fields)
    if not fields.sets_date:
        own.append(date_line)
    if retry_after_seconds > 0 and b"retry-after" not in fields.dropped:
        own.append(b"Retry-After: %d\r\n" % math.ceil(retry_after_seconds))
    if is_grpc:
        own.append(b"Content-Type: application/grpc\r\n")
        own += [b"%b: %b\r\n" % pair for pair in grpc.own_trailers(reason, detail, retry_after_seconds)]
        return _whole(200, own, b"", fields.added)
    own.append(b"Content-Type: application/problem+json\r\n")
    return _whole(row.status, own, _problem(row, reason, detail, route, request_id), fields.added)


def final_recipient(method: bytes, head: bytes, *, request_id: bytes, date_line: bytes) -> OwnAnswer:
    """What a request gets whose `Max-Forwards` ends here (RFC 9110 7.6.2): TRACE its own head, OPTIONS nothing."""
    own: Own = [
        b'Proxy-Status: sidecar; details="', FINAL_RECIPIENT.encode(), b'"\r\n',
        b"x-request-id: ", request_id, b"\r\nVia: 1.1 sidecar\r\n", date_line,
    ]  # fmt: skip
    if method != b"TRACE":
        return _whole(200, own, b"")
    own.append(b"Content-Type: message/http\r\n")
    return _whole(200, own, head)


def acted(status: int, own: Own, added: Added, body: bytes) -> OwnAnswer:
    """What a route answers itself (a redirect, a fixed answer): no error, so no row of the table."""
    length = None if status in (204, 304) else len(body)
    if length is not None:
        own.append(b"Content-Length: %d\r\n" % length)
    return _with(added, status, own, length, body)


def _whole(status: int, own: Own, body: bytes, added: Added = NOTHING) -> OwnAnswer:
    own.append(b"Content-Length: %d\r\n" % len(body))
    return _with(added, status, own, len(body), body)


def _with(added: Added, status: int, own: Own, length: int | None, body: bytes) -> OwnAnswer:
    head = own_answer(status, own, length, has_own_date=True)
    head.added = added
    return OwnAnswer(head, body)


def _fallback(fallback: FallbackPolicy, own: Own, date_line: bytes, fields: OwnFields) -> OwnAnswer:
    if not fields.sets_date and all(name.lower() != date.KEY for name, _ in fallback.headers):
        own.append(date_line)
    own += [b"%b: %b\r\n" % field for field in static(fields.kept(fallback.headers))]
    if fallback.status not in (204, 304):
        return _whole(fallback.status, own, fallback.body, fields.added)
    return _with(fields.added, fallback.status, own, None, fallback.body)


def _problem(row: Row, reason: Reason, detail: str, route: str | None, request_id: bytes) -> bytes:
    problem = {
        "type": f"urn:sidecar:problem:{reason.error_type}",
        "title": row.title,
        "status": row.status,
        "detail": detail,
        "route": route,
        "request_id": request_id.decode("ascii"),
    }
    return json.dumps(problem).encode() + b"\n"
