"""From the bytes of one head that is not plain to a `Request`, or to the reason why it is none.

Decides what is a well-framed request, and how large a head may be. llhttp (strict) reads the fields; the request line
is read here, since llhttp knows some methods and three versions alone (RFC 9110 9.1, RFC 9112 2.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sidecar.core.errors import Reason
from sidecar.core.grpc_status import is_grpc
from sidecar.core.plain import Field
from sidecar.core.request import PLAIN, TUNNEL, Request, Traits
from sidecar.http1 import llhttp, parse
from sidecar.http1.llhttp import MalformedHead
from sidecar.http1.unfinished import UnfinishedHead

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

_READ_FURTHER = frozenset({
    b"connection", b"expect", b"content-length", b"content-type", b"transfer-encoding", b"upgrade", b"te",
})  # fmt: skip


def read_request(listener: ListenerTerms, head: bytes) -> tuple[Request, bool]:
    """A request, and whether its connection goes on behind it.

    Raises:
        Refused: the head is malformed, too large, or asks for what this hop does not do.
    """
    line, _, rest = head.partition(b"\r\n")
    method, target, version = parse.split_request_line(line)
    check_size(listener, len(head), target, head.count(b"\r\n") - 2)
    fields = read_fields(rest, version)
    lookup = parse.values_of(fields)
    parse.check_counts(listener.limits, target, fields, lookup)
    authority, origin_target = parse.split_target(
        method, target, lookup.get(b"host"), version, takes_connect=listener.takes_connect
    )
    if not listener.is_trusted:
        fields, lookup = parse.without_internal(fields, lookup)
    request = Request().take(listener.name, method, target, origin_target, authority, fields, lookup)
    if version != "1.1" or not _READ_FURTHER.isdisjoint(lookup) or parse.has_underscores(lookup):
        _read_further(request, version)
    if method == b"CONNECT":
        _check_connect(request)
    return request, parse.keeps_alive(lookup, version)


def _check_connect(request: Request) -> None:
    """It has no content (RFC 9110 9.3.6): what follows its head is the tunnel's, or two readers would part the bytes
    in two ways.

    Raises:
        Refused: its head announces some.
    """
    if request.length:
        raise parse.bad_request("a CONNECT with a body")
    request.traits = Traits(http_version=request.traits.http_version, upgrade=TUNNEL)


def read_fields(rest: bytes, version: str) -> list[Field]:
    """The fields behind a request line. Raises: Refused."""
    try:
        return llhttp.read_request_fields(b"GET / HTTP/%b\r\n%b" % (version.encode(), rest))
    except MalformedHead as error:
        raise refusal_of(error, rest, version) from None


def refusal_of(error: MalformedHead, fields: bytes, version: str) -> parse.Refused:
    """Why llhttp does not read these fields."""
    if version == "1.1" and "Transfer-Encoding" in str(error):
        try:
            parse.check_known_coding(fields)
        except parse.Refused as refused:
            return refused
    return parse.bad_request(str(error))


def _read_further(request: Request, version: str) -> None:
    """What only some requests say: how long their body is, whether they ask for an upgrade, gRPC or not."""
    lookup = request.lookup
    is_chunked = parse.check_framing(lookup, version)
    request.length = -1 if is_chunked else parse.body_length(lookup)
    upgrade = b""
    if request.length == 0 and b"upgrade" in lookup and parse.asks_for_upgrade(lookup):
        upgrade = parse.tunnelled(
            lookup[b"upgrade"], version
        )  # with a body it is ignored, as RFC 9110 7.8 allows
    traits = Traits(
        http_version=version,
        is_chunked=is_chunked,
        upgrade=upgrade,
        is_grpc=is_grpc(lookup.get(b"content-type", b"")),
        has_underscores=parse.has_underscores(lookup),
        expects_continue=b"expect" in lookup and version == "1.1" and request.length != 0,
    )
    needs_more = b"connection" in lookup or b"te" in lookup
    if needs_more or traits != PLAIN:
        request.traits = traits


def check_unfinished(listener: ListenerTerms, unfinished: UnfinishedHead) -> None:
    """Raises: Refused, if what is there of a head cannot become one."""
    size, line = len(unfinished), unfinished.first_line
    if line is not None and not unfinished.is_line_checked:
        _, target, _ = parse.split_request_line(line)
        check_size(listener, size, target, 0)
        unfinished.is_line_checked = True
    if size > listener.small_head_bytes:
        limits, fields = listener.limits, unfinished.line_ends - 1
        if line is None and unfinished.begun_target_bytes > limits.url_bytes:
            raise url_too_long(listener)
        if size - 4 > limits.head_bytes or fields > limits.headers:
            raise too_large(listener, size, b"", fields)


def check_size(listener: ListenerTerms, head_bytes: int, target: bytes, fields: int) -> None:
    """Raises: Refused, if a head of that size breaks a limit of the listener."""
    if head_bytes > listener.small_head_bytes:
        limits = listener.limits
        if head_bytes - 4 > limits.head_bytes or len(target) > limits.url_bytes or fields > limits.headers:
            raise too_large(listener, head_bytes, target, fields)


def fits(
    listener: ListenerTerms,
    head_bytes: int,
    target: bytes,
    fields: Sequence[Field],
    lookup: Mapping[bytes, bytes],
) -> bool:
    """Whether a plain head keeps every limit."""
    limits = listener.limits
    if (
        head_bytes <= limits.url_bytes
        and head_bytes <= limits.head_bytes
        and len(fields) <= limits.headers
        and len(target) <= limits.parameters  # a byte each, at least
        and b"cookie" not in lookup
    ):
        return True  # as a traced request usually is: 0.4 µs less. `Connection` has one option, or it is not plain
    try:
        check_size(listener, head_bytes, target, len(fields))
        parse.check_counts(listener.limits, target, fields, lookup)
    except parse.Refused:
        return False
    return True


def too_large(listener: ListenerTerms, head_bytes: int, target: bytes, fields: int) -> parse.Refused:
    """Which limit a head breaks."""
    limits = listener.limits
    if len(target) > limits.url_bytes:
        return url_too_long(listener)
    if fields > limits.headers:
        return parse.too_many(limits.headers, "header fields")
    return parse.Refused(Reason.HEAD_TOO_LARGE, f"the head is larger than {limits.head_bytes} bytes")


def url_too_long(listener: ListenerTerms) -> parse.Refused:
    return parse.Refused(Reason.URL_TOO_LONG, f"the target is longer than {listener.limits.url_bytes} bytes")
