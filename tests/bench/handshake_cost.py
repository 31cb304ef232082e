"""What a TLS connection costs that is made for one request: handshake, request, answer and end, without sockets.

    python -m tests.bench.handshake_cost [--profile] [--connections 1000]

Microseconds of this process's time in the sidecar, of one connection: the lower decile of a thousand, since other
work on the machine lengthens the others. The client is OpenSSL in memory, and its time does not count. Bytes go in
where uvloop would bring them and stop where it would take them; `writes` are those that would each be a call of the
kernel.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from sidecar.config.load import load_text
from sidecar.downstream.handshake import ClientHandshake
from sidecar.runtime.worker import Worker
from sidecar.transport.link import Link
from tests.bench.path_cost import CONFIG, Sink, connected, stopped
from tests.bench.upstream import SMALL
from tests.support.authority import Authority
from tests.support.proxy import HEADER

CONNECTIONS = 1000
GET = b"GET /api/small HTTP/1.1\r\nHost: orders.test\r\nConnection: close\r\n\r\n"


class Raw(Sink):
    """A client's socket, as the loop shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Any = None
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.written.append(bytes(data))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return super().get_extra_info(name) or default

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write_eof(self) -> None:
        self.is_closed = True

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return False

    def take(self) -> bytes:
        data = b"".join(self.written)
        self.written.clear()
        return data


class Connections:
    """Makes one after the other with one sidecar, and adds up what they take."""

    def __init__(self, worker: Worker, profiler: cProfile.Profile | None = None) -> None:
        self._listener = worker.listeners["inbound"]
        (pool,) = worker.assembly.clusters["app"].pools
        self._upstream, self._sink = connected(pool), Sink()
        self._upstream.link = Link(self._sink)  # type: ignore[arg-type]
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._profiler = profiler
        self.took: list[int] = []
        self.writes = 0

    async def one(self) -> None:
        raw, took = Raw(), 0
        served = self._listener.served
        assert served is not None
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self._context.wrap_bio(incoming, outgoing, server_hostname="orders.test")
        _try(client.do_handshake)
        hello = outgoing.read()

        def connect() -> None:
            raw.protocol = ClientHandshake(self._listener, served)
            raw.protocol.connection_made(raw)

        took += self._timed(connect)
        took += self._timed(lambda: raw.protocol.data_received(hello))
        while not raw.written:  # noqa: ASYNC110 - this turn of the loop has had its handshakes
            await asyncio.sleep(0)
        incoming.write(raw.take())
        client.do_handshake()
        finished = outgoing.read()
        took += self._timed(lambda: raw.protocol.data_received(finished))
        await asyncio.sleep(0)
        client.write(GET)
        request = outgoing.read()
        sent = self._sink.writes
        took += self._timed(lambda: raw.protocol.data_received(request))
        is_put_off = self._sink.writes == sent
        while self._sink.writes == sent:  # noqa: ASYNC110 - the loop was held up, and what is new waits
            await asyncio.sleep(0.001)
        took += self._timed(lambda: self._upstream.data_received(SMALL))
        assert raw.is_closed, "the exchange did not end"
        incoming.write(raw.take())
        assert client.read(65536).startswith(b"HTTP/1.1 200")
        took += self._timed(lambda: raw.protocol.connection_lost(None))
        if not is_put_off:
            self.took.append(took)
        self.writes += raw.writes

    def _timed(self, act: Callable[[], None]) -> int:
        if self._profiler is not None:
            self._profiler.enable()
        began = time.perf_counter_ns()
        act()
        took = time.perf_counter_ns() - began
        if self._profiler is not None:
            self._profiler.disable()
        return took


def _try(shake: Callable[[], None]) -> None:
    try:
        shake()
    except ssl.SSLWantReadError:
        return
    raise AssertionError("nothing was asked of the other side")


async def started(folder: Path, log: int) -> Worker:
    """A sidecar whose listener speaks TLS, with nobody behind it."""
    tls = f"tls: {{certificate: {Authority(folder).pair('orders.test').yaml()}}}"
    header = HEADER.replace(
        'inbound: {address: "127.0.0.1:0"}', f'inbound: {{address: "127.0.0.1:0", {tls}}}'
    )
    worker = Worker(load_text(header + CONFIG).snapshot, {}, log_fd=log, clock=time.monotonic)
    await worker.start()
    return worker


async def measure(folder: Path, log: int, count: int, *, is_profile: bool) -> None:
    worker = await started(folder, log)
    profiler = cProfile.Profile(time.thread_time) if is_profile else None
    connections = Connections(worker, profiler)
    for _ in range(count):
        await connections.one()
    ordered = sorted(connections.took)
    micros = ordered[len(ordered) // 10] / 1e3
    print(f"{micros:.1f} µs, {connections.writes / count:.2f} writes")
    await stopped(worker)
    if profiler is not None:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(60)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", action="store_true", help="where the time goes")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    options = parser.parse_args()
    log = os.open(os.devnull, os.O_WRONLY)
    with tempfile.TemporaryDirectory(prefix="sidecar-handshake-") as name:
        uvloop.run(measure(Path(name), log, options.connections, is_profile=options.profile))


if __name__ == "__main__":
    main()
