"""Why the sidecar itself ended an exchange: one token for the log, the metric and the answer.

This module names the reasons and knows nothing of HTTP; `forwarding/answers.py` is the one place that turns a
reason into a status and header fields.
"""

from enum import Enum


class Reason(Enum):
    """A fixed, snake_case token: `error.type` in spans and metrics, `reason` in logs."""

    CIRCUIT_OPEN = "circuit_open"
    OVERLOADED = "overloaded"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    """The budget was spent, or too small, before anything was sent."""
    TIMEOUT = "timeout"
    """The deadline or the attempt's timeout passed during the exchange."""
    CONNECTION_TIMEOUT = "connection_timeout"
    CONNECTION_REFUSED = "connection_refused"
    DNS_ERROR = "dns_error"
    CONNECTION_RESET = "connection_reset"
    INCOMPLETE_RESPONSE = "incomplete_response"
    """The upstream closed in the middle of its answer; reported as `connection_reset`."""
    PROTOCOL_ERROR = "protocol_error"
    TLS_CERTIFICATE = "tls_certificate_error"
    """The other side's certificate is not one that may be trusted here."""
    TLS_PROTOCOL = "tls_protocol_error"
    """A handshake, or what is encrypted, went wrong."""
    TLS_ALERT = "tls_alert_received"
    """The other side ended it, and said why (RFC 8446 6)."""
    NO_ROUTE = "no_route"
    CLOSED_ADDRESS = "destination_ip_prohibited"
    """Nobody reaches that address by naming it (`core/closed.py`)."""
    DNS_TIMEOUT = "dns_timeout"
    """The nameservers did not say what a name stands for in time."""
    BAD_REQUEST = "bad_request"
    HEAD_TOO_LARGE = "head_too_large"
    URL_TOO_LONG = "url_too_long"
    REQUEST_TIMEOUT = "request_timeout"
    """The client took too long to send its request."""
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_IMPLEMENTED = "not_implemented"
    """A transfer coding that this hop does not know."""
    VERSION_NOT_SUPPORTED = "version_not_supported"
    MISDIRECTED = "http_request_denied"
    """The client's connection was made to another name, whose certificate is not that of the request's host."""
    CLIENT_DENIED = "client_denied"
    """The route does not serve the client's address."""
    BODY_TOO_LARGE = "body_too_large"
    """The request's body is longer than its route takes."""
    LOOP = "proxy_loop_detected"
    """The request has passed through this process too often."""
    DRAINING = "draining"
    CALLER_GONE = "caller_gone"
    """The inbound exchange that this call descends from was cancelled."""
    CLIENT_GONE = "client_gone"

    @property
    def error_type(self) -> str:
        """The value of the `error.type` attribute (several reasons may share one, see SPEC table)."""
        return _ERROR_TYPES.get(self, self.value)


GONE = frozenset({Reason.CLIENT_GONE.value, Reason.CALLER_GONE.value})
"""`error.type` where the client left, or who the call was made for: nothing went wrong for one that stayed."""

_ERROR_TYPES = {
    Reason.INCOMPLETE_RESPONSE: "connection_reset",
    Reason.HEAD_TOO_LARGE: "bad_request",
    Reason.URL_TOO_LONG: "bad_request",
    Reason.BODY_TOO_LARGE: "bad_request",
    Reason.REQUEST_TIMEOUT: "bad_request",
    Reason.METHOD_NOT_ALLOWED: "bad_request",
    Reason.NOT_IMPLEMENTED: "bad_request",
    Reason.VERSION_NOT_SUPPORTED: "bad_request",
}
