"""Decoded fields → requests, answers and trailers: whether they are well-formed (RFC 9113 8).

The usual head is read in one pass over its pseudo-fields and one over the rest; names that mean something to framing
are then looked for by one comparison of sets. What is malformed ends its stream, never the connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sidecar.core.block import Block
from sidecar.core.headers import HOP_BY_HOP
from sidecar.core.plain import MAX_LENGTH_DIGITS, TOKEN_BYTES, Field
from sidecar.http2.errors import ErrorCode, StreamFault
from sidecar.http2.hpack import ENTRY_BYTES
from sidecar.http2.hpack_decoder import PSEUDO

_FORBIDDEN: Final = HOP_BY_HOP - {b"te"} | PSEUDO
"""Not among the fields of any message: about one connection (RFC 9113 8.2.2), or pseudo-fields behind others or in
trailers (8.3)."""
_IN_REQUEST: Final = _FORBIDDEN | {b"te", b"content-length", b"host"}
_IN_RESPONSE: Final = _FORBIDDEN | {b"te", b"content-length"}
_USUAL_METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"})
_SCHEMES: Final = frozenset({b"http", b"https"})
_DEFAULT_PORT: Final = {b"http": b":80", b"https": b":443"}
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*")
_AS_TARGET: Final = bytes(byte if 0x21 <= byte < 0x7F and byte != 0x23 else byte ^ 1 for byte in range(256))
"""Translates what is visible, without `#`, to itself, and all else to something else."""
_AS_AUTHORITY: Final = bytes(
    byte if 0x21 <= byte < 0x7F and byte not in b'#/?@\\"<>^`{|}' else byte ^ 1 for byte in range(256)
)
"""The same for an authority: no user's name in it (RFC 9113 8.3.1), nothing that ends it."""


class RequestFields:
    """The head of a well-formed request."""

    __slots__ = (
        "authority", "fields", "known", "length", "lookup", "method", "never_indexed", "path", "protocol", "scheme",
    )  # fmt: skip

    method: bytes
    scheme: bytes
    """Empty with a CONNECT that is not an extended one."""
    authority: bytes
    """`:authority`; where that is missing the value of `host`, or empty. They agree where both came."""
    path: bytes
    """Path and query, or `*`. Empty with a CONNECT that is not an extended one."""
    protocol: bytes
    """Of an extended CONNECT (RFC 8441): `websocket`; else empty."""
    fields: Sequence[Field]
    """As the forwarding has them: (key, line in HTTP/1.1's form, value), without pseudo-fields and `host`, with
    cookies joined to one (RFC 9113 8.2.3). A `Block` where it is remembered: nobody changes it."""
    lookup: Mapping[bytes, bytes]
    """Values by key; those of fields that came more than once, joined (RFC 9110 5.3). Nobody changes it either."""
    never_indexed: frozenset[bytes]
    """Keys of fields that came as never indexed (RFC 7541 6.2.3): to be sent so to the next hop."""
    length: int | None
    """What `content-length` says, in bytes: DATA is held against it. None where it is missing."""
    known: Any
    """What its reader has made of it, where it is remembered; None until then."""


class ResponseFields:
    """A well-formed head of an answer."""

    __slots__ = ("fields", "length", "lookup", "never_indexed", "status")

    status: int
    fields: Sequence[Field]
    lookup: Mapping[bytes, bytes]
    never_indexed: frozenset[bytes]
    length: int | None


def malformed(detail: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, detail)


def size_of(fields: Sequence[Field]) -> int:
    """As MAX_HEADER_LIST_SIZE counts it, in bytes (RFC 9113 6.5.2)."""
    return sum([len(key) + len(value) for key, _, value in fields]) + ENTRY_BYTES * len(fields)


def read_request(fields: list[Field], never_indexed: frozenset[bytes]) -> RequestFields:
    """Raises: StreamFault."""
    method = scheme = authority = path = protocol = None
    count = 0
    for key, line, value in fields:
        if line:
            break
        count += 1
        if key == b":path" and path is None:
            path = value
        elif key == b":method" and method is None:
            method = value
        elif key == b":scheme" and scheme is None:
            scheme = value
        elif key == b":authority" and authority is None:
            authority = value
        elif key == b":protocol" and protocol is None:
            protocol = value
        else:
            raise malformed("a pseudo-field that is unknown, not for requests, or there twice")
    rest, lookup = _read_rest(fields, count)
    head = RequestFields()
    head.known = None
    head.never_indexed = never_indexed
    head.length = None
    host = None
    if not _IN_REQUEST.isdisjoint(lookup):
        head.length = _read_special(lookup)
        host = lookup.pop(b"host", None)
        if host is not None:
            rest = [field for field in rest if field[0] != b"host"]
    if method is None:
        raise malformed("a request without :method")
    if method not in _USUAL_METHODS and (not method or method.translate(None, TOKEN_BYTES)):
        raise malformed("the value of :method is malformed")
    if method == b"CONNECT":
        _check_connect(scheme, authority, path, protocol)
    elif protocol is not None:
        raise malformed(":protocol in a request that is no CONNECT")
    else:
        _check_target(method, scheme, path)
    if authority is not None:
        _check_authority(authority, host, scheme)
    elif host is not None:
        _check_authority(host, None, scheme)
    else:
        raise malformed("a request without :authority and host")
    head.method = method
    head.scheme = scheme or b""
    head.authority = host or b"" if authority is None else authority
    head.path = path or b""
    head.protocol = protocol or b""
    head.fields = rest
    head.lookup = lookup
    return head


def read_response(fields: list[Field], never_indexed: frozenset[bytes]) -> ResponseFields:
    """Raises: StreamFault."""
    if not fields or fields[0][0] != b":status":
        raise malformed("an answer that does not begin with :status")
    text = fields[0][2]
    if len(text) != 3 or not text.isdigit() or text < b"100":
        raise malformed("the value of :status is malformed")
    rest, lookup = _read_rest(fields, 1)
    head = ResponseFields()
    head.never_indexed = never_indexed
    length = None
    if not _IN_RESPONSE.isdisjoint(lookup):
        if b"te" in lookup:
            raise malformed("te in an answer")
        length = _read_special(lookup)
    status = head.status = int(text)
    if status == 101:
        raise malformed("101, which HTTP/2 does not have")
    if length is not None and (status < 200 or status == 204):  # RFC 9110 8.6
        if length or status < 200:
            raise malformed(f"{status} with a content-length")
        length = None
        del lookup[b"content-length"]
        rest = [field for field in rest if field[0] != b"content-length"]
    head.length = length
    head.fields = rest
    head.lookup = lookup
    return head


def read_trailers(fields: list[Field]) -> list[Field]:
    """Raises: StreamFault."""
    for key, line, value in fields:
        if not line or key in _FORBIDDEN or (key == b"te" and value != b"trailers"):
            raise malformed("a field that must not be in trailers")
        if key == b"content-length":  # too late to frame a body: somebody reads another one (RFC 9110 6.5.1)
            raise malformed("content-length in trailers")
    return fields


def check_clean(fields: Sequence[Field]) -> None:
    """Raises: StreamFault for a field whose name or value is malformed."""
    for key, line, _ in fields:
        if not line and key not in PSEUDO:
            raise malformed("a pseudo-field that is unknown" if key[:1] == b":" else "a malformed field")


def keep(head: RequestFields | ResponseFields) -> None:
    """The head is remembered, and shared by all that are the same."""
    head.lookup = lookup = dict(head.lookup)
    head.fields = Block(head.fields, lookup)


def _read_rest(fields: list[Field], count: int) -> tuple[list[Field], dict[bytes, bytes]]:
    """What is behind the pseudo-fields, and its values by key."""
    rest = fields[count:]
    lookup = {key: value for key, _, value in rest}
    if len(lookup) != len(rest):
        return _join(rest)
    return rest, lookup


def _join(fields: list[Field]) -> tuple[list[Field], dict[bytes, bytes]]:
    """Some names come more than once."""
    lookup: dict[bytes, bytes] = {}
    crumbs: list[bytes] = []
    for key, _, value in fields:
        if key == b"cookie":
            crumbs.append(value)
        elif key not in lookup:
            lookup[key] = value
        elif key in (b"content-length", b"host"):
            raise malformed(f"{key.decode()} twice")
        elif key == b"te" and value == lookup[key]:
            pass
        else:
            lookup[key] += b", " + value
    if not crumbs:
        return fields, lookup
    cookie = b"; ".join(crumbs)
    lookup[b"cookie"] = cookie
    kept = [field for field in fields if field[0] != b"cookie"]
    kept.append((b"cookie", b"cookie: " + cookie + b"\r\n", cookie))
    return kept, lookup


def _read_special(lookup: dict[bytes, bytes]) -> int | None:
    """Fields that mean something to framing; returns the value of `content-length`."""
    if not _FORBIDDEN.isdisjoint(lookup):
        raise malformed("a field about the connection, or a pseudo-field behind others")
    if lookup.get(b"te", b"trailers") != b"trailers":
        raise malformed("te says something else than trailers")
    length = lookup.get(b"content-length")
    if length is None:
        return None
    if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS:
        raise malformed("content-length is not a number")
    return int(length)


def _check_target(method: bytes, scheme: bytes | None, path: bytes | None) -> None:
    if scheme is None or path is None:
        raise malformed("a request without :scheme or :path")
    if scheme not in _SCHEMES and not _SCHEME.fullmatch(scheme):
        raise malformed("the value of :scheme is malformed")
    if path[:1] != b"/" and (path != b"*" or method != b"OPTIONS"):
        raise malformed(":path does not begin with a slash")
    if path.translate(_AS_TARGET) != path:
        raise malformed("the value of :path is malformed")


def _check_connect(
    scheme: bytes | None, authority: bytes | None, path: bytes | None, protocol: bytes | None
) -> None:
    """RFC 9113 8.5; with a protocol RFC 8441 4."""
    if authority is None:
        raise malformed("CONNECT without :authority")
    if protocol is None:
        if scheme is not None or path is not None:
            raise malformed("CONNECT with :scheme or :path")
        return
    if not protocol or protocol.translate(None, TOKEN_BYTES):
        raise malformed("the value of :protocol is malformed")
    _check_target(b"CONNECT", scheme, path)


def _check_authority(authority: bytes, host: bytes | None, scheme: bytes | None) -> None:
    if not authority or authority.translate(_AS_AUTHORITY) != authority:
        raise malformed("the value of :authority or host is malformed")
    if host is not None and host != authority:
        port = _DEFAULT_PORT.get(scheme or b"", b"\n")
        if host.lower().removesuffix(port) != authority.lower().removesuffix(port):
            raise malformed(":authority and host differ")
