"""What connections of HTTP/2 with open streams weigh: the sidecar beside Envoy, on this machine, now.

    python -m tests.bench.http2_memory [--connections 1000] [--streams 10] [--targets sidecar,envoy]

Clients open so many connections with so many requests each, which the upstream takes and never answers. Told is the
resident memory of the proxy before and after, and what is added for each connection and its streams. Exit code 1
where the upstream did not get all requests.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tests.bench.load import HOST
from tests.bench.machine import pick_cores, rss_mib
from tests.bench.targets import HTTP2_TARGETS, PEERS, Target, started
from tests.http2.wire import ACK, HEADERS, PING, PREFACE, SETTINGS, block, frame, frames_of, headers, setting

PATIENCE_SECONDS = 60.0
MANY = 100_000
ANSWER = (("server", "origin"), ("content-length", "2"))


class Upstream(asyncio.Protocol):
    """Counts requests; answers those of `/api/small?ready` alone, by which a target shows that it is ready."""

    begun = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self._unread = transport, b""
        transport.write(setting((3, MANY)))

    def data_received(self, data: bytes) -> None:
        data = (self._unread + data).removeprefix(PREFACE)
        whole = 0
        while len(data) - whole >= 9 and len(data) - whole >= 9 + int.from_bytes(
            data[whole : whole + 3], "big"
        ):
            whole += 9 + int.from_bytes(data[whole : whole + 3], "big")
        self._unread = data[whole:]
        for one in frames_of(data[:whole]):
            if one.kind == SETTINGS and not one.flags & ACK:
                self.transport.write(frame(SETTINGS, ACK, 0))
            elif one.kind == PING and not one.flags & ACK:
                self.transport.write(frame(PING, ACK, 0, one.payload))
            elif one.kind == HEADERS:
                Upstream.begun += 1
                if Upstream.begun == 1:
                    self.transport.write(headers(one.stream_id, block((":status", "200")), 5))


async def opened(port: int, streams: int) -> asyncio.StreamWriter:
    """A client with so many requests under way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + setting() + frame(SETTINGS, ACK, 0))
    fields = (
        (":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/api/small"),
        ("user-agent", "bench"), ("accept", "application/json"),
    )  # fmt: skip
    for number in range(streams):
        writer.write(headers(2 * number + 1, block(*fields), 5))
    await writer.drain()
    await reader.read(1)
    return writer


def roomy(target: Target, folder: Path) -> Target:
    """The same with limits that let all of them in."""
    text = (PEERS / target.template).read_text()
    text = text.replace("max_requests: 1024", f"max_requests: {MANY}")
    text = text.replace("max_pending_requests: 1024", f"max_pending_requests: {MANY}")
    if target.name == "sidecar":
        text += f"limits: {{max_requests: {MANY}, memory: 1GiB}}\n"
        text = text.replace('upstream_port"]', f'upstream_port"], limits: {{max_requests: {MANY}}}')
        text = text.replace("timeouts: {request: 15s}", "timeouts: {request: 300s}")
    text = text.replace("timeout: 15s}", "timeout: 300s}")
    file = folder / target.template
    file.write_text(text)
    return replace(target, template=str(file))


async def measure(target: Target, core: int, connections: int, streams: int) -> bool:
    """Print a line. Returns whether all requests came through."""
    loop = asyncio.get_running_loop()
    Upstream.begun = 0
    server = await loop.create_server(Upstream, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        folder = Path(name)
        context = started(
            roomy(target, folder), core=core, upstream_port=port, directory=folder, grpc_port=port
        )
        running = await asyncio.to_thread(context.__enter__)
        before, begun = rss_mib(running.pids()), Upstream.begun
        clients = [await opened(running.port, streams) for _ in range(connections)]
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while Upstream.begun - begun < connections * streams:  # noqa: ASYNC110  (it sets no event)
                    await asyncio.sleep(0.05)
        after, seen = rss_mib(running.pids()), Upstream.begun - begun
        for client in clients:
            client.transport.abort()
        await asyncio.to_thread(context.__exit__, None, None, None)
    server.close()
    each = (after - before) * 1024 / connections
    print(f"| {target.name} | {seen:,} | {before:.1f} | {after:.1f} | {each:.1f} |", flush=True)
    return seen == connections * streams


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--targets", default=",".join(HTTP2_TARGETS))
    options = parser.parse_args()
    cores = pick_cores()
    os.sched_setaffinity(0, {cores.load})
    print("| | requests open | MiB before | MiB after | KiB a connection |\n| --- | --- | --- | --- | --- |")
    good = [
        await measure(HTTP2_TARGETS[name], cores.proxy, options.connections, options.streams)
        for name in options.targets.split(",")
    ]
    if not all(good):
        sys.exit(1)


if __name__ == "__main__":
    asyncio.run(main())
