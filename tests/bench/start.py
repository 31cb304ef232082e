"""What a start of the sidecar takes, and what an idle one weighs.

    python -m tests.bench.start [--times 10]

A sidecar with one route is started so many times, on one core and then on all that this process may use. Told are the
time from exec until `/readyz` says 200, the CPU time until then of the serving process and of the one that loads the
configuration, and the memory of the serving process at rest (PSS: what it shares with others counts in part). What
else runs on the machine only ever adds to it, so the smallest counts; how far the median is from it tells how busy
the machine was. Byte code is written before, as an installation has it: to compile takes longer than the start.
"""

from __future__ import annotations

import argparse
import compileall
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import sidecar
from tests.bench.machine import cpu_seconds, tree
from tests.support.ports import free_ports

SOURCES = Path(sidecar.__file__).parent
READY_SECONDS = 60.0
"""Against hanging."""
LOOK_SECONDS = 0.001
REST_SECONDS = 1.0
"""From ready until memory is read."""
QUESTION = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Start:
    """One start."""

    ready_ms: float
    cpu_ms: float
    """Of both processes. That of the loading one is counted in hundredths of a second."""
    rss_mib: float
    pss_mib: float


def main() -> int:
    """Two lines, one for each choice of cores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=10)
    times = parser.parse_args().times
    compileall.compile_dir(SOURCES, quiet=1)
    cores = sorted(os.sched_getaffinity(0))
    print("| cores | ready, ms | CPU, ms | RSS, MiB | PSS, MiB |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        for chosen in (cores[-1:], cores):
            print(row(chosen, [start(Path(name), chosen) for _ in range(times)]), flush=True)
    return 0


def row(cores: list[int], starts: list[Start]) -> str:
    """Smallest, and in brackets the median."""

    def cell(figure: Callable[[Start], float], digits: int) -> str:
        found = [figure(one) for one in starts]
        return f"{min(found):.{digits}f} ({statistics.median(found):.{digits}f})"

    cells = [
        cell(lambda one: one.ready_ms, 0),
        cell(lambda one: one.cpu_ms, 0),
        cell(lambda one: one.rss_mib, 1),
        cell(lambda one: one.pss_mib, 1),
    ]
    return f"| {len(cores)} | {' | '.join(cells)} |"


def start(folder: Path, cores: Iterable[int]) -> Start:
    """Start one on these cores, and end it.

    Raises:
        AssertionError: it does not become ready.
    """
    inbound, admin, probes = free_ports(3)
    file = folder / "sidecar.yaml"
    file.write_text(
        f"version: 1\nlisteners: {{inbound: {{address: '127.0.0.1:{inbound}'}}}}\n"
        f"probes: {{address: '127.0.0.1:{probes}'}}\nadmin: {{address: '127.0.0.1:{admin}'}}\n"
        "upstreams: {app: {endpoints: ['127.0.0.1:9']}}\nroutes: [{name: app, upstream: app}]\n"
    )
    command = ["taskset", "-c", ",".join(map(str, cores)), sys.executable, "-m", "sidecar", "run", str(file)]
    with (folder / "sidecar.log").open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            until_ready(process, probes)
            ready_seconds = time.monotonic() - began
            cpu = cpu_seconds(tree(process.pid))
            time.sleep(REST_SECONDS)
            rss, pss = (memory_mib(process.pid, field) for field in ("Rss", "Pss"))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return Start(ready_seconds * 1000, cpu * 1000, rss, pss)


def until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    """Ask until the answer is 200."""
    deadline = time.monotonic() + READY_SECONDS
    while not is_ready(port):
        assert process.poll() is None, f"it has ended with {process.returncode}"
        assert time.monotonic() < deadline, "it does not become ready"
        time.sleep(LOOK_SECONDS)


def is_ready(port: int) -> bool:
    """Whether the probe says so now."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)):
            return False
        try:
            probe.sendall(QUESTION)
            return probe.recv(64).startswith(b"HTTP/1.1 200 ")
        except ConnectionError:
            return False


def memory_mib(pid: int, field: str) -> float:
    """Of one process, by smaps_rollup of proc(5)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) / 1024
    raise ValueError(f"smaps_rollup has no {field}")


if __name__ == "__main__":
    sys.exit(main())
