"""What idle connections of HTTP/1.1 weigh: the sidecar beside Envoy and nginx, on this machine, now.

    python -m tests.bench.idle_memory [--connections 10000] [--targets sidecar,envoy,nginx]

Clients open so many connections, have one answer each, and keep them open. Told is the resident memory of the proxy
before, meanwhile, and after they have left, and what is added for each. What the kernel holds is not in it.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench.load import HOST
from tests.bench.machine import pick_cores, rss_mib
from tests.bench.targets import TARGETS, Target, await_ok, pinned, started
from tests.support.ports import free_ports

SPARE = 500
SETTLE_SECONDS = 2.0
REQUEST = b"GET /api/small HTTP/1.1\r\nHost: %b\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n" % HOST.encode()


def main() -> int:
    """One target after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--targets", default="sidecar,envoy,nginx")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < options.connections + SPARE:
        parser.error(f"at most {hard - SPARE} connections: the limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cores = pick_cores()
    os.sched_setaffinity(0, {cores.load})
    print("| | MiB before | MiB with them | KiB a connection | MiB after |\n| --- | --- | --- | --- | --- |")
    for name in options.targets.split(","):
        measure(TARGETS[name], cores.proxy, cores.load, options.connections)
    return 0


def measure(target: Target, core: int, load_core: int, connections: int) -> None:
    """Print a line."""
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name, ExitStack() as stack:
        folder, (port,) = Path(name), free_ports(1)
        command = [sys.executable, "-m", "tests.bench.upstream", str(port)]
        upstream = stack.enter_context(pinned(command, core=load_core, log=folder / "upstream.log"))
        await_ok(upstream, port, "/api/small")
        running = stack.enter_context(
            started(target, core=core, upstream_port=port, directory=folder, connections=connections + SPARE)
        )
        before = rss_mib(running.pids())
        clients = [answered(running.port) for _ in range(connections)]
        time.sleep(SETTLE_SECONDS)
        during = rss_mib(running.pids())
        for client in clients:
            client.close()
        time.sleep(SETTLE_SECONDS)
        after = rss_mib(running.pids())
    each = (during - before) * 1024 / connections
    print(f"| {target.name} | {before:.1f} | {during:.1f} | {each:.2f} | {after:.1f} |", flush=True)


def answered(port: int) -> socket.socket:
    """A client that has had an answer. Raises OSError, ValueError."""
    client = socket.create_connection(("127.0.0.1", port), 10.0)
    client.sendall(REQUEST)
    answer = client.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ValueError(f"no answer to a client, but {answer[:100]!r}")
    return client


if __name__ == "__main__":
    sys.exit(main())
