"""What a route's `response_headers` change in an answer that the sidecar makes in the place of an upstream's: an
error, or the fixed response of a fallback. What holds for every answer of a route, such as
`Strict-Transport-Security`, holds for these.

What describes the answer itself stays: its `Content-Type` and gRPC's status, and beside the route's what the sidecar
says of each answer (`Proxy-Status`, `x-request-id`, `Via`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sidecar.core.actions.fields import Described, FilledFields, static
from sidecar.core.actions.networks import Clients
from sidecar.core.actions.policy import EVERYBODY, ClientPolicy
from sidecar.core.actions.template import Value
from sidecar.core.head import NOTHING, Added
from sidecar.core.snapshot import HeaderOps, Route
from sidecar.forwarding import date

_NONE: Final[frozenset[bytes]] = frozenset()


class OwnFields:
    """One route's."""

    __slots__ = ("_filled", "added", "dropped", "sets_date")

    def __init__(self, ops: HeaderOps, clients: ClientPolicy) -> None:
        given = [pair for pair in (*ops.set, *ops.add) if not _describes(pair[0])]
        names = {name for name, _ in given}
        self.added = Added(static(given)) if given else NOTHING
        """What is alike in each answer."""
        self.dropped = _NONE
        """Names of fields that the route removes or sets, so that nobody else gives them."""
        if ops.set or ops.remove:
            changed = {*ops.remove, *(name for name, _ in ops.set)}
            self.dropped = frozenset(name for name in changed if not _describes(name))
        self.sets_date = date.KEY in self.dropped or date.KEY in names
        """The route removes or gives it."""
        self._filled = FilledFields(given, Clients(clients))

    @classmethod
    def of(cls, policy: Route) -> OwnFields:
        """That of a route; many change nothing, and share one."""
        ops = policy.response_headers
        return UNCHANGED if ops == HeaderOps() else cls(ops, policy.clients)

    def kept(self, fields: Iterable[tuple[bytes, Value]]) -> list[tuple[bytes, Value]]:
        """Those of `fields` that are left beside the route's."""
        return [pair for pair in fields if pair[0].lower() not in self.dropped]

    def lines(self, exchange: Described) -> bytes:
        """Further lines, of fields whose values hold variables."""
        return self._filled.lines(exchange) if self._filled else b""


def _describes(name: bytes) -> bool:
    return name == b"content-type" or name.startswith(b"grpc-")


UNCHANGED: Final = OwnFields(HeaderOps(), EVERYBODY)
"""Of a request without a route, and of a route that changes nothing."""
