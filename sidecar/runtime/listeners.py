"""The listening sockets of one process: started, kept, moved and let go as snapshots come.

A socket is known by its address, so a listener that keeps it is never touched, whatever else changes. New ones are
bound before anything is let go: an address that cannot be had refuses the whole snapshot.
"""

from __future__ import annotations

import asyncio
from dataclasses import field, replace
from socket import socket as Socket

from sidecar.config.watch import Watch
from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Address, Listener, ListenerTls, Snapshot, Unmatched
from sidecar.downstream.connected import AnyClient
from sidecar.downstream.listener import ListenerSocket
from sidecar.forwarding.service import Service
from sidecar.transport.bind import Bind, bind_own
from sidecar.transport.namespace import has_ipv6
from sidecar.transport.tls.files import TlsFileError
from sidecar.transport.tls.served import ServedCertificates, files_of, load_served


@dataclass(slots=True)
class Prepared:
    """The sockets of the next snapshot, bound; in use after `Listeners.commit`."""

    sockets: dict[str, ListenerSocket] = field(default_factory=dict)
    started: list[ListenerSocket] = field(default_factory=list)
    served: dict[str, ServedCertificates | None] = field(default_factory=dict)
    """Of those whose certificates are others than before, or that have none any more."""


def load_listener(policy: Listener) -> ServedCertificates:
    """Read and check the files of a listener with `tls`; for a thread.

    Raises:
        TlsFileError: the text names the key and the file.
    """
    assert policy.tls is not None, "asked of listeners with TLS alone"
    files = files_of(policy.tls)
    digest = Watch(files[0], files).look(0.0) or ""
    try:
        return load_served(policy, digest)
    except TlsFileError as error:
        raise TlsFileError(f"listeners.{policy.name}.tls: {error}") from error.__cause__


_BESIDE = {"127.0.0.1": "::1", "0.0.0.0": "::"}
"""Where what was intercepted of IPv6 arrives: a redirection goes to the same address of its own family."""
SECOND = "/ipv6"
"""Behind the name of a listener: its second socket."""


def with_second_sockets(snapshot: Snapshot) -> dict[str, Listener]:
    """All that is bound: listeners that may be intercepted have a socket for each family."""
    found = dict(snapshot.listeners)
    for name, listener in snapshot.listeners.items():
        address = listener.address
        beside = _BESIDE.get(address.host)
        if listener.unmatched is Unmatched.REFUSE or beside is None or not address.port or not has_ipv6():
            continue
        found[name + SECOND] = replace(listener, address=Address(beside, address.port, is_v6_only=True))
    return found


def are_alike(before: ListenerTls | None, now: ListenerTls | None) -> bool:
    """Whether who was let in by the one would be by the other, whichever certificate they were shown."""
    if before is None or now is None:
        return before is now
    return replace(before, certificate=now.certificate, certificates=now.certificates) == now


class Listeners:
    """All listening sockets, and those removed ones whose connections have not ended yet."""

    def __init__(self, service: Service, bind: Bind = bind_own) -> None:
        self._bind = bind
        self.sockets: dict[str, ListenerSocket] = {}
        """By name. The same dict for the process's life."""
        self._service = service
        self._retired: list[ListenerSocket] = []

    def all(self) -> list[ListenerSocket]:
        """Those in use, and those removed ones that still have connections."""
        return [*self.sockets.values(), *self._retired]

    def listening(self) -> list[Socket]:
        """The sockets of those in use."""
        return [each for one in self.sockets.values() for each in one.queues.listening()]

    def connections(self) -> list[AnyClient]:
        """All that are open now, of all listeners."""
        return [connection for socket in self.all() for connection in socket.connections()]

    async def prepare(self, snapshot: Snapshot) -> Prepared:
        """Bind what `snapshot` has and what is not bound yet.

        Raises:
            OSError: an address cannot be bound; nothing has changed then.
        """
        prepared = Prepared()
        taken: dict[Address, ListenerSocket] = {
            socket.policy.address: socket
            for socket in self.sockets.values()
            if socket.policy.address.port or socket.policy.address.path
        }
        try:
            for name, policy in with_second_sockets(snapshot).items():
                own = self.sockets.get(name)
                is_own = own is not None and own.policy.address == policy.address
                socket = own if is_own else taken.get(policy.address)
                served = await self._served(socket, policy, prepared)
                if socket is None:
                    socket = ListenerSocket(policy, self._service, served)
                    await socket.bind(self._bind)
                    prepared.started.append(socket)
                prepared.sockets[name] = socket
        except BaseException:
            self.discard(prepared)
            raise
        return prepared

    async def _served(
        self, socket: ListenerSocket | None, policy: Listener, prepared: Prepared
    ) -> ServedCertificates | None:
        """The certificates of a listener that shows others than before.

        Raises:
            TlsFileError: they cannot be used.
        """
        if socket is not None and (socket.policy.tls, socket.policy.protocol) == (
            policy.tls,
            policy.protocol,
        ):
            return socket.served
        served = None
        if policy.tls is not None:
            served = await asyncio.to_thread(load_listener, policy)
        prepared.served[policy.name] = served
        return served

    def discard(self, prepared: Prepared) -> None:
        """Let go of what was bound for nothing."""
        for socket in prepared.started:
            socket.close()

    def commit(self, prepared: Prepared, snapshot: Snapshot) -> None:
        """Put them in place; what is not among them stops accepting, and ends with its last exchange."""
        kept = {id(socket) for socket in prepared.sockets.values()}
        self._retired += [socket for socket in self.sockets.values() if id(socket) not in kept]
        self.sockets.clear()
        self.sockets.update(prepared.sockets)
        for name, policy in with_second_sockets(snapshot).items():
            socket = self.sockets[name]
            if policy.name in prepared.served:
                socket.served = prepared.served[policy.name]
            if socket.policy != policy:
                is_outdated = not are_alike(socket.policy.tls, policy.tls)
                socket.adopt(policy)
                if is_outdated:
                    socket.retire()
        for socket in prepared.started:
            socket.start()
        self.tick()

    def tick(self) -> None:
        """Once a second: close connections of removed listeners as they fall idle, and let go of old ones."""
        now = self._service.clock()
        for socket in self.sockets.values():
            socket.retire_old(now)
        for socket in self._retired:
            socket.stop_accepting()
        for socket in [one for one in self._retired if one.connection_count == 0]:
            socket.close()
            self._retired.remove(socket)

    def close(self) -> None:
        """Cut everything."""
        for socket in self.all():
            socket.close()
