"""Heads of the servers beside the data path: a request's from its bytes, and an answer's to its bytes. Pure.

Read as strictly as on the data path, by the same checks: a head that two readers could read in two ways is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, unquote

from sidecar.core.errors import Reason
from sidecar.core.snapshot import ListenerLimits
from sidecar.http1 import parse
from sidecar.http1.llhttp import MalformedHead, read_request_fields
from sidecar.http1.unfinished import UnfinishedHead
from sidecar.serving.message import Client, Pairs, Request, Response

SERVER_NAME: Final = "sidecar"
"""In `Server`: which version of what this is helps those alone who look for a hole in it."""
_LIMITS: Final = ListenerLimits()
"""As a listener of the data path has them where nobody says: what is counted here takes its time, and is kept."""
_STATUSES: Final = {
    Reason.HEAD_TOO_LARGE: 431,
    Reason.METHOD_NOT_ALLOWED: 405,
    Reason.NOT_IMPLEMENTED: 501,
    Reason.VERSION_NOT_SUPPORTED: 505,
}
WITHOUT_BODY: Final = frozenset({204, 304})
"""Statuses of answers that end with their head."""


class NoRequest(Exception):
    """A head that is none, or none that is served: the answer's status, and why."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def check_line(head: UnfinishedHead) -> None:
    """Refuse a head whose first line is whole, and none of a request. Raises: NoRequest."""
    if head.first_line is None or head.is_line_checked:
        return
    head.is_line_checked = True
    try:
        parse.split_request_line(head.first_line)
    except parse.Refused as error:
        raise _as_answer(error) from None


def read_request(head: bytes, client: Client) -> Request:
    """The request that a whole head makes. Raises: NoRequest."""
    line, _, rest = head.partition(b"\r\n")
    try:
        method, target, version = parse.split_request_line(line)
        if len(target) > _LIMITS.url_bytes:
            raise NoRequest(414, f"a target has at most {_LIMITS.url_bytes} bytes here")
        if rest.count(b"\r\n") - 1 > _LIMITS.headers:  # before they are read
            raise parse.too_many(_LIMITS.headers, "header fields")
        fields = read_request_fields(b"GET / HTTP/%b\r\n%b" % (version.encode(), rest))
        lookup = parse.values_of(fields)
        parse.check_counts(_LIMITS, target, fields, lookup)
        authority, origin = _asked(
            method, target, [value for key, _, value in fields if key == b"host"], version
        )
        is_chunked = parse.check_framing(lookup, version)
        length = -1 if is_chunked else parse.body_length(lookup)
        raw_path, _, query = origin.decode("ascii").partition("?")
        pairs = Pairs(parse_qsl(query, keep_blank_values=True))
    except parse.Refused as error:
        raise _as_answer(error) from None
    except (MalformedHead, ValueError) as error:
        raise NoRequest(400, str(error)) from None
    if authority is not None:  # it wins over Host (RFC 9112 3.2.2)
        fields = [(b"host", b"Host", authority), *(one for one in fields if one[0] != b"host")]
    headers = Pairs(
        (key.decode("ascii"), value.decode("utf-8", "surrogateescape")) for key, _, value in fields
    )
    request = Request(client, method.decode("ascii"), version, headers, raw_path, unescaped(raw_path), pairs)
    request.length = length
    request.keeps_alive = parse.keeps_alive(lookup, version)
    expected = lookup.get(b"expect", b"").lower()
    request.expects_continue = expected == b"100-continue" and version == "1.1" and length != 0
    return request


def _as_answer(error: parse.Refused) -> NoRequest:
    return NoRequest(_STATUSES.get(error.reason, 400), error.detail)


def _asked(method: bytes, target: bytes, hosts: list[bytes], version: str) -> tuple[bytes | None, bytes]:
    """The host of a target that names one, else None; and the path and query that are asked for. A host that is not
    ours is the handler's to refuse, in its own words.

    Raises:
        parse.Refused: no Host or several, or a target in another form.
    """
    if len(hosts) > 1:
        raise parse.bad_request("several Hosts")
    if target[:1] == b"/" and b"#" not in target and (hosts or version == "1.0"):
        return None, target
    authority, origin = parse.split_target(method, target, hosts[0] if hosts else None, version)
    return None if target == b"*" else authority, origin


def unescaped(text: str) -> str:
    """A path, or a part of one, without its escapes; as it is where they are no UTF-8."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text


def write_head(
    response: Response,
    date: str,
    more: Mapping[str, str],
    *,
    length: int | None,
    connection: str,
    is_chunked: bool,
) -> bytes:
    """`more`: fields of every answer of this server, where this one has not said otherwise. `length`: of its body;
    None: it ends with its last chunk, or with the connection. `connection`: the field's value; empty: none.

    Raises:
        ValueError: a field that would be two.
    """
    fields = {**more, **response.fields, "Date": date, "Server": SERVER_NAME}
    if response.status in WITHOUT_BODY:
        fields.pop("Content-Type", None)
    elif is_chunked:
        fields["Transfer-Encoding"] = "chunked"
    elif length is not None:
        fields["Content-Length"] = str(length)
    if connection:
        fields["Connection"] = connection
    lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a line break in a field of an answer")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
