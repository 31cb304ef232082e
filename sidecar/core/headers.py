"""Header fields as bytes: which ones stop at this hop, and how a head is put together in one pass.

A field is kept as `(key, line, value)`: the lower-case key to look it up by, and the line that goes on to the next
hop. Forwarding a head is one loop that leaves out what a precomputed set names; nothing is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from sidecar.core.client_tls import XFCC_NAMES
from sidecar.core.snapshot import HeaderOps

Fields = Sequence[tuple[bytes, bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
"""RFC 9110 7.6.1; `Connection`'s own list comes on top for each message."""

_NOT_FOR_ONE_HOP = frozenset({b"content-length", b"host", b"traceparent", b"tracestate", b"cache-control"})
"""What `Connection` may list and must not (RFC 9110 7.6.1): a body without its length would be the next request."""

FORWARDED: Final = frozenset({b"forwarded"}) | {
    b"x%bforwarded%b%b" % (first, second, last)
    for first in (b"-", b"_")
    for second in (b"-", b"_")
    for last in (b"for", b"proto", b"host")
}
"""`X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`. Spellings with `_` are among them, since servers that hand
fields on as variables (CGI, WSGI) make one name of both: a client could slip in what its own was dropped for."""

TELLS_OF_CLIENT: Final = FORWARDED | XFCC_NAMES
"""The fields that a listener may drop, and write itself."""

REPLACED_IN_REQUEST: Final = frozenset(
    {b"host", b"traceparent", b"tracestate", b"x-request-id", b"proxy-authorization"}
)
"""Written anew by this hop. `Proxy-Authorization` was meant for this proxy (RFC 9110 11.7.2)."""

REPLACED_IN_RESPONSE: Final = frozenset({b"x-request-id"})

NEVER_IN_TRAILERS: Final = HOP_BY_HOP | {
    b"content-length", b"host", b"trailer", b"content-encoding", b"content-type", b"content-range",
    b"authorization", b"set-cookie", b"cache-control", b"expect", b"max-forwards", b"te",
    b"traceparent", b"tracestate",
} | XFCC_NAMES  # fmt: skip
"""Fields that framing, routing or authentication reads (RFC 9110 6.5.1): dropped from trailers."""

_RENAMED = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
"""Phrases of RFC 9110 that older versions of the standard library do not have."""

STATUS_LINES: Final = {
    int(status): b"HTTP/1.1 %d %s\r\n" % (status, _RENAMED.get(int(status), status.phrase).encode())
    for status in HTTPStatus
}

_UNLISTED = (b"close", b"keep-alive", b"")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


def status_line(status: int) -> bytes:
    """The status line; an unregistered status gets an empty phrase, which RFC 9112 4 allows."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def is_valid_request_id(value: bytes) -> bool:
    """True for 1 to 128 visible ASCII characters: safe in a header, a log line and a JSON string."""
    return _REQUEST_ID.fullmatch(value) is not None


@lru_cache(maxsize=256)  # peers send a few, and each message asks several times
def listed_in_connection(value: bytes) -> frozenset[bytes]:
    """The field names that a `Connection` value nominates as hop-by-hop, lower-case.

    Names that are not tokens are ignored: no field can bear them. Whoever reads the field limits how many it lists.
    """
    tokens = (token.strip(b" \t").lower() for token in value.split(b","))
    listed = frozenset(token for token in tokens if token not in _UNLISTED and _TOKEN.fullmatch(token))
    return listed - _NOT_FOR_ONE_HOP


def drop_set(base: Iterable[bytes], ops: HeaderOps) -> frozenset[bytes]:
    """What a route leaves out of a head: `base`, what it removes and what it sets itself."""
    return frozenset(base) | ops.remove | {name for name, _ in ops.set}


def with_underscored(drop: frozenset[bytes], keys: Iterable[bytes]) -> frozenset[bytes]:
    """`drop`, and those of `keys` that differ from one of its names by `_` and `-` alone.

    Servers that hand fields on as variables (CGI, WSGI) make one name of both: whoever removes `x-debug` means
    `x_debug` too.
    """
    folded = {name.replace(b"_", b"-") for name in drop}
    return drop | {key for key in keys if key.replace(b"_", b"-") in folded}


def append_fields(out: list[bytes], fields: Fields, drop: frozenset[bytes]) -> None:
    """Append each line of `fields` but the dropped ones to `out`."""
    for key, line, _ in fields:
        if key not in drop:
            out.append(line)


def trailer_block(fields: Fields) -> bytes:
    """The trailer section's lines, without what must not stand there."""
    out: list[bytes] = []
    append_fields(out, fields, NEVER_IN_TRAILERS)
    return b"".join(out)
