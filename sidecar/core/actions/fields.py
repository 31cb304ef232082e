"""Header fields whose values hold variables, filled in for one request.

What a client wrote cannot end a field or begin another one: each byte but visible ASCII and space is written as
`%XX`. A client can still choose what such a value says, so an upstream must not believe one that holds
`request.…` more than the request itself. What there is not (no certificate, no query) is empty; a client without an
address is `unknown`, as in `Forwarded` (RFC 7239 6.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from sidecar.core.actions.networks import Clients
from sidecar.core.actions.template import Template, Value, Variable
from sidecar.core.forwarded import UNKNOWN
from sidecar.core.observe import ObservedTrace
from sidecar.core.request import Request


class Described(Protocol):
    """One request, as the variables tell of it: an exchange."""

    @property
    def request(self) -> Request: ...
    @property
    def trace(self) -> ObservedTrace: ...
    @property
    def route_name(self) -> str | None: ...
    @property
    def peer(self) -> tuple[str, int] | None:
        """The address of its connection, None for UNIX sockets."""


Fill = Callable[[Described], bytes]
"""What a variable stands for in one request."""

_ENCODED: Final = [bytes((byte,)) if 0x20 <= byte < 0x7F else b"%%%02X" % byte for byte in range(256)]
MOST_VALUE_BYTES: Final = 8 * 1024
"""Of what one variable stands for: the rest is cut off. Servers take heads of 8 KiB at least."""


def _scheme(exchange: Described) -> bytes:
    return b"http" if exchange.request.tls is None else b"https"


def _port(exchange: Described) -> bytes:
    peer = exchange.peer
    return b"" if peer is None else b"%d" % peer[1]


_FILLS: Final[Mapping[str, Fill]] = {
    "client.port": _port,
    "client.identity": lambda exchange: exchange.request.client.encode(),
    "listener.name": lambda exchange: exchange.request.listener.encode(),
    "request.host": lambda exchange: exchange.request.host,
    "request.id": lambda exchange: exchange.trace.request_id,
    "request.method": lambda exchange: exchange.request.method,
    "request.path": lambda exchange: exchange.request.origin_target.partition(b"?")[0],
    "request.query": lambda exchange: exchange.request.origin_target.partition(b"?")[2],
    "request.scheme": _scheme,
    "route.name": lambda exchange: (exchange.route_name or "").encode(),
    "trace.id": lambda exchange: exchange.trace.trace_id,
}


class FilledFields:
    """The fields of one route that hold variables, ready for its requests."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[bytes, Value]], clients: Clients) -> None:
        """Those of `fields` that are templates; `clients` says whose address counts."""
        self._fields = tuple(
            (name, tuple(_part(part, clients) for part in value.parts))
            for name, value in fields
            if isinstance(value, Template)
        )

    def __bool__(self) -> bool:
        return bool(self._fields)

    def pairs(self, exchange: Described) -> list[tuple[bytes, bytes]]:
        """Name and value of each. Spaces around a value are no part of it (RFC 9110 5.5)."""
        return [
            (name, b"".join([part if part.__class__ is bytes else part(exchange) for part in parts]).strip())  # type: ignore[operator]
            for name, parts in self._fields
        ]

    def lines(self, exchange: Described) -> bytes:
        """The same in HTTP/1.1's form."""
        return b"".join([b"%b: %b\r\n" % pair for pair in self.pairs(exchange)])


def static(fields: Iterable[tuple[bytes, Value]]) -> tuple[tuple[bytes, bytes], ...]:
    """The fields that are alike for each request."""
    return tuple((name, value) for name, value in fields if isinstance(value, bytes))


def encoded(value: bytes) -> bytes:
    """`value` as it may stand in a field."""
    if len(value) > MOST_VALUE_BYTES:
        value = value[:MOST_VALUE_BYTES]
    if value.isascii() and value.decode("ascii").isprintable():
        return value
    return b"".join([_ENCODED[byte] for byte in value])


def _part(part: bytes | Variable, clients: Clients) -> bytes | Fill:
    if isinstance(part, bytes):
        return part
    if part.field:
        name = part.field
        return lambda exchange: encoded(exchange.request.lookup.get(name, b""))
    if part.name == "client.address":

        def address(exchange: Described) -> bytes:
            found = clients.address(exchange.peer, exchange.request.lookup)
            return UNKNOWN if found is None else found.encode()

        return address
    fill = _FILLS[part.name]
    return lambda exchange: encoded(fill(exchange))
