"""`python -m tests.bench.overload`: what is left of a proxy's capacity when twice or five times of it is offered.

Open loop: requests leave at a fixed rate whatever becomes of them, over many connections, and a client gives up after
1 s. Goodput is what was answered with 200 within that time. The capacity is what the same proxy answers to the same
program in a closed loop of 64 connections. Proxy on one core, upstream and load on the other.

Exit codes: 0 measured, 2 wrong use, or a target that does not run.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import install
from tests.bench.load import HOST, quantile
from tests.bench.machine import Cores, SetupError, description, pick_cores
from tests.bench.program import run, say, unwind_on_sigterm
from tests.bench.targets import TARGETS, Running, TargetError, await_ok, pinned, started
from tests.support.ports import free_ports

SOURCE = Path(__file__).with_name("open_load.c")
CLOSED_CONNECTIONS = 64
CONNECTIONS = 8_000
MARGIN = 1_000
"""Connections that a proxy is configured for beyond those of the load."""
TIMEOUT_MS = 1_000
TIMES = (2.0, 5.0)
PROBE_SECONDS = 0.1
PROBE_TIMEOUT_SECONDS = 10.0
GRACE_SECONDS = 60.0


@dataclass(slots=True)
class Row:
    """One proxy under one load."""

    target: str
    times: float
    """Of its capacity; 0 for the closed loop that measures it."""
    seconds: float
    good: int
    sent: int
    refused: int
    timed_out: int
    cut: int
    unsent: int
    opened: int
    p50_us: float
    p99_us: float
    load_cpu: float
    opened_breakers: int = 0
    """How often the proxy's breakers opened; known of the sidecar alone."""
    livez_ms: list[float] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds


class Livez:
    """Asks for /livez ten times a second on connections of their own, as a kubelet does, and keeps the times."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.times_ms: list[float] = []

    def __enter__(self) -> "Livez":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(PROBE_SECONDS):
            begin = time.monotonic()
            is_ok = self._ask()
            seconds = time.monotonic() - begin if is_ok else PROBE_TIMEOUT_SECONDS
            self.times_ms.append(seconds * 1e3)

    def _ask(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PROBE_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@dataclass(slots=True)
class Bench:
    """The load program, the cores, and where the upstream is."""

    program: Path
    cores: Cores
    upstream_port: int
    directory: Path
    connections: int
    seconds: int
    say: Callable[[str], None]

    def rows(self, name: str, capacity: float | None) -> list[Row]:
        """All loads on one target. `capacity`: requests a second; None: it is measured.

        Raises:
            TargetError: the target does not run.
        """
        found: list[Row] = []
        for times in (0.0, *TIMES):
            with started(
                TARGETS[name],
                core=self.cores.proxy,
                upstream_port=self.upstream_port,
                directory=self.directory,
                connections=self.connections + MARGIN,
            ) as running:
                row = self._row(name, running, times, capacity or (found[0].goodput if found else 0.0))
            found.append(row)
            self.say(f"{name}, {told(times)}: {row.goodput:.0f}/s good, p99 {row.p99_us / 1e3:.0f} ms")
        return found

    def _row(self, name: str, running: Running, times: float, capacity: float) -> Row:
        count = self.connections if times else CLOSED_CONNECTIONS
        if name == "sidecar":
            with Livez(running.probes_port) as livez:
                row = self._load(name, running.port, times, count, capacity * times)
            row.livez_ms = sorted(livez.times_ms)
            row.opened_breakers = opened_breakers(running.probes_port)
            return row
        return self._load(name, running.port, times, count, capacity * times)

    def _load(self, name: str, port: int, times: float, count: int, rate: float) -> Row:
        command = ["taskset", "-c", str(self.cores.load), str(self.program), str(port), HOST, "/api/small"]
        command += [str(count), f"{rate:.0f}", str(self.seconds), str(TIMEOUT_MS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=self.seconds + GRACE_SECONDS)
        if done.returncode:
            raise TargetError(f"{name}: the load ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        said = json.loads(done.stdout)
        cut = said["cut"] + said["other"] + said["not_connected"]
        return Row(
            name, times, said["seconds"], said["good"], said["sent"], said["refused"], said["timed_out"], cut,
            said["unsent"], said["opened"], said["p50_us"], said["p99_us"], said["cpu"],
        )  # fmt: skip


def opened_breakers(probes_port: int) -> int:
    """Of the sidecar whose probes are at that port."""
    connection = http.client.HTTPConnection("127.0.0.1", probes_port, timeout=PROBE_TIMEOUT_SECONDS)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    to_open = [
        line
        for line in lines
        if line.startswith("sidecar_circuit_breaker_transitions_total{") and 'state_to="open"' in line
    ]
    return round(sum(float(line.rpartition(" ")[2]) for line in to_open))


def told(times: float) -> str:
    return f"{times:g} × capacity" if times else "closed loop"


def table(rows: list[Row]) -> str:
    """Markdown: one line for each target and load."""
    lines = [
        "| proxy | load | offered/s | good/s | of capacity | refused/s | timed out/s | p50, ms | p99, ms "
        "| /livez p99, ms | breakers opened |",
        "| --- " * 11 + "|",
    ]
    capacity = {row.target: row.goodput for row in rows if not row.times}
    for row in rows:
        base = capacity[row.target]
        offered = f"{base * row.times:.0f}" if row.times else "–"
        livez = f"{quantile(row.livez_ms, 0.99):.0f}" if row.livez_ms else "–"  # type: ignore[arg-type]
        lines.append(
            f"| {row.target} | {told(row.times)} | {offered} | {row.goodput:.0f} | {row.goodput / base:.0%} "
            f"| {row.refused / row.seconds:.0f} | {row.timed_out / row.seconds:.0f} "
            f"| {row.p50_us / 1e3:.1f} | {row.p99_us / 1e3:.0f} | {livez} "
            f"| {row.opened_breakers if row.livez_ms else '–'} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Parse, install, build the load program, measure, print; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.overload", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--targets", default=",".join(TARGETS), help=f"comma-separated, of {', '.join(TARGETS)}"
    )
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help=f"of the load ({CONNECTIONS})")
    parser.add_argument(
        "--seconds", type=int, default=8, help="of each load, after 2 s that are not counted (8)"
    )
    parser.add_argument(
        "--install", choices=("auto", "never"), default="auto", help="install missing programs (auto)"
    )
    options = parser.parse_args()
    names = [name for name in options.targets.split(",") if name]
    if not names or set(names) - TARGETS.keys() or options.seconds < 1 or options.connections < 1:
        parser.error(f"--targets takes {', '.join(TARGETS)}; --seconds and --connections start at 1")
    unwind_on_sigterm()
    try:
        cores = pick_cores()
        install.ensure({"envoy", "haproxy", "nginx"} & set(names), allowed=options.install == "auto")
        rows = measure(names, cores, options.connections, options.seconds)
    except (SetupError, TargetError) as error:
        say(str(error))
        return 2
    print(table(rows))
    print(f"\n- {options.connections} connections, time-out {TIMEOUT_MS} ms, {options.seconds} s each")
    print(f"- {description()}")
    return 0


def measure(names: list[str], cores: Cores, connections: int, seconds: int) -> list[Row]:
    """All rows, with the upstream running beside them.

    Raises:
        SetupError: there is no C compiler.
        TargetError: the upstream or a target does not run.
    """
    os.sched_setaffinity(0, {cores.load})
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        directory = Path(name)
        program = built(directory)
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "tests.bench.upstream", str(port)]
        with pinned(command, core=cores.load, log=directory / "upstream.log") as upstream:
            await_ok(upstream, port, "/api/small")
            bench = Bench(program, cores, port, directory, connections, seconds, say)
            return [row for target in names for row in bench.rows(target, None)]


def built(directory: Path) -> Path:
    """The load program, compiled there. Raises SetupError without a compiler."""
    program = directory / "open_load"
    try:
        done = subprocess.run(
            ["cc", "-O2", "-o", str(program), str(SOURCE)], capture_output=True, text=True, timeout=60
        )
    except OSError as error:
        raise SetupError(
            f"the load program needs a C compiler: apt-get install gcc libc6-dev ({error})"
        ) from None
    if done.returncode:
        raise SetupError(f"the load program does not compile:\n{done.stderr}")
    return program


if __name__ == "__main__":
    run(main)
