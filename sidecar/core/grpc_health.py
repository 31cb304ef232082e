"""The two messages of `grpc.health.v1.Health/Check` (grpc/doc/health-checking.md), without a library: each has one
field. Pure.

A message on the wire has a flag (0: not compressed) and its length in four bytes before it (PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

from typing import Final

from sidecar.core.protobuf import field

PATH: Final = "/grpc.health.v1.Health/Check"
SERVING: Final = 1
STATES: Final = {0: "UNKNOWN", SERVING: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_PREFIX_BYTES: Final = 5
_FIELD_1_TEXT: Final = b"\x0a"
_FIELD_1_NUMBER: Final = 0x08


class NoHealth(ValueError):
    """What came is no answer to the question; the text says why."""


def question(service: str) -> bytes:
    """A `HealthCheckRequest`, with its prefix; an empty `service` is the server as a whole."""
    name = service.encode()
    message = field(_FIELD_1_TEXT, name) if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def answer(body: bytes) -> int:
    """The state in a `HealthCheckResponse`, see `STATES`; others may come to be.

    Raises:
        NoHealth: it is none.
    """
    if len(body) < _PREFIX_BYTES:
        raise NoHealth("no message came")
    if body[0]:
        raise NoHealth("the message is compressed, which was not asked for")
    message = body[_PREFIX_BYTES:]
    if len(message) != int.from_bytes(body[1:_PREFIX_BYTES], "big"):
        raise NoHealth("the message is cut short, or more than one came")
    return _field_1(message)


def _field_1(message: bytes) -> int:
    """0 where it is left out, as protobuf leaves out zeros; the last one counts."""
    state, at = 0, 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _read_varint(message, at)
            if key == _FIELD_1_NUMBER:
                state = value
        elif kind == 2:
            length, at = _read_varint(message, at)
            at += length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise NoHealth("the message is no protobuf")
    if at != len(message):
        raise NoHealth("the message is no protobuf")
    return state


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7
    raise NoHealth("the message is no protobuf")
