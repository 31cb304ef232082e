"""A client's connection without a socket, before a data path that is moved by hand."""

from __future__ import annotations

from sidecar.core.head import response_head
from sidecar.core.snapshot import Address, Forwarded, Listener, ListenerLimits, ListenerTimeouts
from sidecar.downstream.http1 import ClientConnection
from sidecar.downstream.listener import ListenerSocket
from sidecar.downstream.phase import Phase
from tests.support.by_hand import HandLease, HandTransport, Path, connected

TIMEOUTS = ListenerTimeouts(head_seconds=2.0, idle_seconds=5.0, body_seconds=3.0)
GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
NO_ROUTE = "elsewhere"
"""A listener without routes: each request is answered at once with 404."""


def post(length: int, *fields: bytes) -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n%b\r\n" % (length, lines)


class Stage:
    """One client. Each request needs a lease from `upstream` before it is sent."""

    def __init__(self, path: Path | None = None, *, listener: str = "inbound", connections: int = 10) -> None:
        self.path = path or Path()
        self.loop = self.path.loop
        policy = Listener(
            listener,
            Address("127.0.0.1", 0),
            ListenerLimits(connections=connections),
            TIMEOUTS,
            forwarded=Forwarded.KEEP,
        )
        self.listener = ListenerSocket(policy, self.path.service)
        self.connection, self.transport = self.connect()

    def connect(self) -> tuple[ClientConnection, HandTransport]:
        connection = ClientConnection(self.listener)
        return connection, connected(connection)

    def upstream(self) -> HandLease:
        """An idle connection, which the next request takes."""
        return self.path.idle_lease()

    def send(self, *reads: bytes) -> None:
        for data in reads:
            self.connection.data_received(data)

    def answer(self, lease: HandLease, body: bytes = b"ok", status: int = 200) -> None:
        assert lease.heard_by is not None
        lines = [(b"content-length", b"Content-Length: %d\r\n" % len(body), b"%d" % len(body))]
        lease.heard_by.answered(response_head(status, lines, len(body)), body)

    def serve(self) -> None:
        """A whole exchange."""
        lease = self.upstream()
        self.send(GET)
        self.answer(lease)
        assert self.statuses() == [200]

    def lose(self, error: Exception | None = None) -> None:
        self.connection.connection_lost(error)

    @property
    def phase(self) -> Phase:
        return self.connection.phase

    def statuses(self) -> list[int]:
        """Of the answers that were written since the last call."""
        parts = self.transport.take().split(b"HTTP/1.1 ")
        return [int(part[:3]) for part in parts if part]
