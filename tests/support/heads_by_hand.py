"""Sends heads to a listener without sockets, with an upstream's connection always at hand: for tests and benches that
count or measure what one head costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from sidecar.downstream.http1 import ClientConnection
from sidecar.runtime.worker import Worker
from sidecar.upstream.http1 import UpstreamConnection
from sidecar.upstream.lease import Fate
from tests.bench.path_cost import Sink

T = TypeVar("T")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Answers(Sink):
    """Keeps the first bytes that were written."""

    def __init__(self) -> None:
        super().__init__()
        self.first = b""

    def write(self, data: bytes) -> None:
        self.first = self.first or bytes(data[:12])

    def writelines(self, data: list[bytes]) -> None:
        self.write(data[0])

    def write_eof(self) -> None: ...
    def set_protocol(self, protocol: object) -> None: ...


class HeadDriver:
    """One listener of a worker, and an upstream's connection that is always there."""

    def __init__(self, worker: Worker, listener: str) -> None:
        self._worker = worker
        self._listener = worker.listeners[listener]
        self._pool = worker.assembly.clusters["app"].pools[0]

    def send(self, head: bytes, around: Callable[[Callable[[], None]], T]) -> tuple[T, int]:
        """What `around` makes of a call that sends this head and takes its answer; and the status of that."""
        client, upstream, out = self._ready()

        def exchange() -> None:
            client.data_received(head)
            if upstream not in self._pool.idle and not out.first:
                upstream.data_received(ANSWER)

        made = around(exchange)
        client.connection_lost(None)
        upstream.abort()
        return made, int(out.first[9:12] or 0)

    def halves(self, begin: bytes) -> tuple[int, int]:
        """Nanoseconds of CPU for the first and the second half of bytes that come one by one, and end nothing."""
        client, upstream, out = self._ready()
        times = [time.process_time_ns()]
        half = len(begin) // 2
        for part in (begin[:half], begin[half:]):
            for at in range(len(part)):
                client.data_received(part[at : at + 1])
            times.append(time.process_time_ns())
        assert not out.first, "it is answered"
        client.connection_lost(None)
        upstream.abort()
        return times[1] - times[0], times[2] - times[1]

    def _ready(self) -> tuple[ClientConnection, UpstreamConnection, Answers]:
        out = Answers()
        client = ClientConnection(self._listener)
        client.connection_made(out)  # type: ignore[arg-type]
        for idle in list(self._pool.idle):
            idle.abort()
        upstream = UpstreamConnection(self._pool)
        upstream.connection_made(Sink())  # type: ignore[arg-type]
        self._pool.add(upstream)
        upstream.release(Fate.REUSABLE, time.monotonic())
        return client, upstream, out
