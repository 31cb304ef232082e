"""What a proxy costs that has nothing to do: CPU time and wake-ups of a second in which nobody asks for anything.

    python -m tests.bench.at_rest [TARGET…]

Each target is started as in `compare`, left alone for a minute, answers a few requests and keeps some idle
connections; then the CPU time of its threads and their context switches are counted for a while, once at rest and
once with one request a second. Most pods of a cluster are like that most of the time.
"""

from __future__ import annotations

import argparse
import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.bench.load import HOST
from tests.bench.targets import RELAY, TARGETS, Running, started
from tests.support.ports import free_ports, until_it_listens

CONNECTIONS = 10
CALM_SECONDS = 62.0
"""Until the sidecar looks at its files once a second alone."""
SETTLE_SECONDS = 3.0
"""For what follows requests."""
SECONDS = 20.0


def used(pids: Iterable[int]) -> tuple[float, int]:
    """CPU seconds of all threads so far, and how often one of them was switched to another."""
    nanoseconds = switches = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            nanoseconds += int((task / "schedstat").read_text().split()[0])
            lines = (task / "status").read_text().splitlines()
            switches += sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)
    return nanoseconds / 1e9, switches


def connected(running: Running) -> list[http.client.HTTPConnection]:
    """Connections that have each had an answer."""
    connections = [http.client.HTTPConnection("127.0.0.1", running.port) for _ in range(CONNECTIONS)]
    for connection in connections:
        ask(connection)
    return connections


def ask(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/api/small", headers={"Host": HOST})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"an answer of {answer.status}")
    answer.read()


def measured(running: Running, asking: http.client.HTTPConnection | None) -> tuple[float, float]:
    """CPU milliseconds and switches of a second; `asking`: for one request a second."""
    pids = running.pids()
    cpu, switches = used(pids)
    for _ in range(int(SECONDS)):
        time.sleep(1.0)
        if asking is not None:
            ask(asking)
    cpu_then, switches_then = used(pids)
    return 1e3 * (cpu_then - cpu) / SECONDS, (switches_then - switches) / SECONDS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "targets", metavar="TARGET", nargs="*", help="sidecar, envoy and nginx if none is given"
    )
    names = parser.parse_args().targets or ["sidecar", "envoy", "nginx"]
    unknown = [name for name in names if name not in TARGETS or name == RELAY]
    if unknown:
        parser.error(f"no target {', '.join(unknown)}: there are {', '.join(set(TARGETS) - {RELAY})}")
    (upstream_port,) = free_ports(1)
    upstream = subprocess.Popen([sys.executable, "-m", "tests.bench.upstream", str(upstream_port)])
    try:
        until_it_listens(upstream, upstream_port)
        print("| of a second | CPU ms at rest | switches | CPU ms, 1 request a second | switches |")
        print("| --- | --- | --- | --- | --- |")
        for name in names:
            with (
                tempfile.TemporaryDirectory() as folder,
                started(
                    TARGETS[name], core=0, upstream_port=upstream_port, directory=Path(folder)
                ) as running,
            ):
                time.sleep(CALM_SECONDS)
                connections = connected(running)
                time.sleep(SETTLE_SECONDS)
                cells = (*measured(running, None), *measured(running, connections[0]))
                print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)
    finally:
        upstream.kill()
        upstream.wait()


if __name__ == "__main__":
    main()
