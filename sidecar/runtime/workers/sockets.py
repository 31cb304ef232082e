"""The listening sockets of all workers: bound by the supervisor before it forks, and kept open for those that come.

Each worker has a socket of its own for each address, and all processes have all of them: what waits in the queue of a
worker that has died is not lost, since the socket lives on and a neighbour takes from it (of 40 new connections, 21
hung without that). Owned by each process for itself after the fork.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from sidecar.core.snapshot import Address, Snapshot
from sidecar.runtime.activation import Activated
from sidecar.runtime.listeners import with_second_sockets
from sidecar.transport.bind import bind_many

MOST_ADDRESSES: Final = 128
"""Of listeners, with several workers. `lifeline.py` has room for all of them in one message, whatever their names,
and for the sockets of as many new ones before a child reads on."""

Identity = tuple[Address, str]
"""An address; with its key in the configuration where any port will do, since several may ask for one."""


def identity(address: Address, key: str) -> Identity:
    is_any_port = address.path is None and not address.port
    return address, key if is_any_port else ""


def addresses_of(snapshot: Snapshot) -> list[tuple[Address, str]]:
    """What its listeners need, with the keys in the configuration.

    Raises:
        OSError: that is more than several workers can share.
    """
    policies = with_second_sockets(snapshot).values()
    if len(policies) > MOST_ADDRESSES:
        raise OSError(
            f"listeners: {len(policies)} addresses are more than {MOST_ADDRESSES}, which several workers can share: "
            "have fewer, or `workers: 1`"
        )
    return [(policy.address, f"listeners.{policy.name}.address") for policy in policies]


class SharedSockets:
    """By address, at least one for each worker; of a UNIX socket, and of one of systemd's, one for all."""

    def __init__(self, count: int, activated: Activated | None = None) -> None:
        """`count`: of the workers. `activated`: what systemd has opened, one for all workers."""
        self._count = count
        self._activated = activated or Activated()
        self._by: dict[Identity, tuple[socket.socket, ...]] = {}

    @property
    def hindrance(self) -> str:
        """As of `Activated`."""
        return self._activated.hindrance

    def __contains__(self, one: Identity) -> bool:
        return one in self._by

    def identities(self) -> tuple[Identity, ...]:
        """Of all that is bound."""
        return tuple(self._by)

    def bind_all(self, snapshot: Snapshot) -> None:
        """Bind what a snapshot has.

        Raises:
            OSError: an address cannot be bound, or there are too many; the text names the key and a remedy.
        """
        for address, key in addresses_of(snapshot):
            self.bind(address, key)
        self._activated.tell()

    def is_lent(self, address: Address, key: str) -> bool:
        """Systemd keeps it."""
        return self._activated.find(address, key) is not None

    def bind(self, address: Address, key: str) -> Identity:
        """Bind one address, unless it is. Raises: OSError, as above."""
        one = identity(address, key)
        if one not in self._by:
            lent = self._activated.find(address, key)
            self._by[one] = (lent.dup(),) if lent else tuple(bind_many(address, key, self._count))
        return one

    def add(self, one: Identity, sockets: Sequence[socket.socket]) -> None:
        """What another process has bound."""
        for old in self._by.get(one, ()):
            old.close()
        self._by[one] = tuple(sockets)

    def all_of(self, one: Identity) -> tuple[socket.socket, ...]:
        """Raises KeyError: it is not bound."""
        return self._by[one]

    def of(self, one: Identity, number: int) -> tuple[socket.socket, ...]:
        """Those of one worker: of what another process has left there may be more than there are workers.

        Raises:
            KeyError: it is not bound.
        """
        sockets = self._by[one]
        return sockets[(number - 1) % len(sockets) :: self._count]

    def neighbours(self, number: int) -> Iterator[tuple[Identity, socket.socket]]:
        """Those of another worker, where it has one of its own."""
        for one, sockets in self._by.items():
            if len(sockets) > 1:
                yield from ((one, each) for each in self.of(one, number))

    def keep(self, identities: Collection[Identity]) -> None:
        """Close all others."""
        for one in [one for one in self._by if one not in identities]:
            for gone in self._by.pop(one):
                gone.close()
