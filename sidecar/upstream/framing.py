"""How the body behind a response head ends, and what becomes of its connection (RFC 9112 6.3, 9.3).

Pure. Ambiguous framing is refused, never repaired: the next reader might repair it differently.
"""

from __future__ import annotations

from enum import Enum, auto
from math import inf
from typing import Final, NamedTuple

from sidecar.core.plain import Field
from sidecar.http1.llhttp import MalformedHead

MAX_LENGTH: Final = 2**63 - 1
MAX_LENGTH_DIGITS: Final = 19
MAX_LISTED: Final = 128
"""Options of one response's `Connection`: each names a field that ends here."""
MAX_KEEP_SECONDS: Final = 86_400.0
"""A longer promise of `Keep-Alive: timeout=…` is taken for this."""
_BODYLESS: Final = frozenset({204, 304})


class Body(Enum):
    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()


class Framing(NamedTuple):
    body: Body
    length: int | None
    """As `Content-Length` says, also where no body follows (HEAD, 304)."""
    is_keep_alive: bool
    keeps_seconds: float
    """How long the upstream keeps the connection when it is idle; infinite where it does not say."""
    listed: bytes
    """The value of `Connection`, or empty."""


def read_framing(status: int, version: str, fields: list[Field], *, is_head_request: bool) -> Framing:
    """Raises: MalformedHead."""
    length: int | None = None
    chunked, listed, keeps = 0, b"", inf
    for key, _, value in fields:
        if key == b"content-length":
            length = _length(value)  # llhttp has refused everything but digits, and a second one
        elif key == b"transfer-encoding":
            chunked += 1
            if value.lower() != b"chunked":
                raise MalformedHead("transfer coding other than chunked")
        elif key == b"connection":
            listed = listed + b"," + value if listed else value
            if listed.count(b",") >= MAX_LISTED:
                raise MalformedHead("too many options of Connection")
        elif key == b"keep-alive":
            keeps = min(keeps, _keeps_seconds(value))
    if chunked and (chunked > 1 or length is not None):
        raise MalformedHead("ambiguous framing of the response")
    if version not in ("1.1", "1.0") or (chunked and version != "1.1"):
        raise MalformedHead("an unknown version, or a transfer coding in HTTP/1.0")
    is_keep_alive = version == "1.1" and b"close" not in listed.lower()
    if status < 200 or is_head_request or status in _BODYLESS:
        body = Body.NONE
    elif chunked:
        body = Body.CHUNKED
    elif length is None:
        body = Body.UNTIL_CLOSE
        is_keep_alive = False
    else:
        body = Body.LENGTH
    return Framing(body, length, is_keep_alive, keeps, listed)


def _length(digits: bytes) -> int:
    """Of a body. Python refuses to read more than 4300 digits, and zeros may stand before them."""
    digits = digits.lstrip(b"0") or b"0"
    if len(digits) > MAX_LENGTH_DIGITS or int(digits) > MAX_LENGTH:
        raise MalformedHead("Content-Length out of range")
    return int(digits)


def _keeps_seconds(value: bytes) -> float:
    """The `timeout` of a `Keep-Alive` field (RFC 2068 19.7.1.1); infinite where there is none."""
    for part in value.split(b",", MAX_LISTED)[:MAX_LISTED]:
        name, _, number = part.strip(b" \t").partition(b"=")
        number = number.strip(b' \t"')
        if name.strip(b" \t").lower() == b"timeout" and number.isdigit():
            return min(float(number), MAX_KEEP_SECONDS)
    return inf
