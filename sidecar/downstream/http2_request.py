"""From a request that HTTP/2 brought to a `Request`, or to the reason why it is none.

The codec has held it against RFC 9113 8; here is what a listener limits, what only trusted callers may say, and what
HTTP/1.1's reader decides the same way (`parse.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.core.errors import Reason
from sidecar.core.grpc_status import is_grpc
from sidecar.core.request import PLAIN_2, Request, Traits
from sidecar.downstream import parse
from sidecar.http2.events import RequestReceived

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

VERSION: Final = "2"
WEBSOCKET: Final = b"websocket"
_SPECIAL: Final = frozenset({b"content-type", b"te", b"expect"})


def read_request(listener: ListenerTerms, event: RequestReceived) -> Request:
    """The request as the forwarding knows it.

    Raises:
        Refused: it breaks a limit of the listener, or asks for what this hop does not do. Its stream alone is
            refused with it.
    """
    method, target = event.method, event.path
    if method == b"CONNECT":
        raise _no_tunnel(event)
    if len(method) > parse.MAX_METHOD_BYTES:
        raise parse.bad_request("malformed method")
    limits = listener.limits
    if len(target) > limits.url_bytes:
        raise parse.Refused(Reason.URL_TOO_LONG, f"the target is longer than {limits.url_bytes} bytes")
    fields, lookup = event.fields, event.lookup
    parse.check_counts(limits, target, fields, lookup)
    if target[:1] != b"/" and not (target == b"*" and method == b"OPTIONS"):
        raise parse.bad_request("unsupported form of the request target")
    if b"#" in target:
        raise parse.bad_request("a fragment in the request target")
    host = parse.check_host(event.authority)
    if not listener.is_trusted:
        fields, lookup = parse.without_internal(fields, lookup)
    request = Request(listener.name, method, target, target, host, fields, lookup)
    has_underscores = parse.has_underscores(lookup)
    is_special = event.never_indexed or has_underscores or not _SPECIAL.isdisjoint(lookup)
    if is_special or not event.is_end:
        _read_further(request, event, has_underscores=has_underscores)
    else:
        request.traits = PLAIN_2
    return request


def _no_tunnel(event: RequestReceived) -> parse.Refused:
    """CONNECT is not supported, nor is a WebSocket by RFC 8441: no tunnel is made of a stream."""
    if not event.protocol:
        detail = "CONNECT is not supported here: send the request itself"
        return parse.Refused(Reason.METHOD_NOT_ALLOWED, detail)
    if event.protocol != WEBSOCKET:
        return parse.Refused(Reason.NOT_IMPLEMENTED, "a :protocol other than websocket")
    return parse.Refused(Reason.NOT_IMPLEMENTED, "a WebSocket on HTTP/2: open it by HTTP/1.1")


def _read_further(request: Request, event: RequestReceived, *, has_underscores: bool) -> None:
    """What only some requests say: how long their body is, what they expect, gRPC or not."""
    lookup = request.lookup
    if not event.is_end:
        request.length = -1 if event.length is None else event.length
    request.traits = Traits(
        http_version=VERSION,
        is_chunked=request.length < 0,
        is_grpc=is_grpc(lookup.get(b"content-type", b"")),
        has_underscores=has_underscores,
        expects_continue=b"expect" in lookup and request.length != 0,
        never_indexed=event.never_indexed,
    )
