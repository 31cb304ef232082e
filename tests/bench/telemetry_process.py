"""What telemetry costs a real sidecar process: CPU for each request, and latency at flush and collection.

    python -m tests.bench.telemetry_process cost
    python -m tests.bench.telemetry_process latency

The variants run side by side, all pinned to one core, and take turns under the same load, so that a change of
the machine's pace hits them alike. `silent` is the same process whose data path reports to nobody; the others
differ in their `telemetry` section alone. Spans and metrics go to a live rotel on the load's core, which throws
them away. `cost` is CPU time of the process with all its threads, divided by the requests it served; `latency`
is measured at a fixed rate with 1,000 routes that all have rows, a flush and a collection each second.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import CONNECTIONS, HOST, LoadError, quantile
from tests.bench.machine import cpu_seconds, pick_cores
from tests.bench.targets import await_ok, get, pinned
from tests.support.ports import free_ports

FILE = """\
version: 1
listeners:
  inbound: {address: "127.0.0.1:%(port)d"}
admin: {address: "127.0.0.1:%(admin)d"}
probes: {address: "127.0.0.1:%(probes)d"}
drain: {delay: 0s}
telemetry:
  service_name: bench
  access_log: {format: "off"}
%(telemetry)s
upstreams:
  app: {endpoints: ["127.0.0.1:%(upstream)d"]}
routes:
"""
ROUTE = '- {name: "bench%d", match: {hosts: [%s], path: {prefix: %s}}, upstream: app}\n'
ROUTES = 1000
COST_RPS, LATENCY_RPS = 4000, 500


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the same process; `ratio` None exports nothing."""

    name: str
    ratio: float | None = None
    interval: str = "10s"
    routes: int = 1
    is_silent: bool = False

    def file(self, ports: Sequence[int], upstream: int, collector: int) -> str:
        telemetry = ""
        if self.ratio is not None:
            telemetry = (
                f'  otlp: {{endpoint: "http://127.0.0.1:{collector}", protocol: grpc}}\n'
                f"  traces: {{sample_ratio: {self.ratio}}}\n  metrics: {{interval: {self.interval}}}"
            )
        values = dict(zip(("port", "admin", "probes"), ports, strict=True))
        head = FILE % (values | {"telemetry": telemetry, "upstream": upstream})
        others = [ROUTE % (number, HOST, f"/route-{number}") for number in range(1, self.routes)]
        return head + ROUTE % (0, HOST, "/api") + "".join(others)


COST = (
    Variant("silent", is_silent=True),
    Variant("metrics, nothing exported"),
    Variant("metrics, 1 % sampled, exported", 0.01),
    Variant("metrics, 100 % sampled, exported", 1.0),
)
LATENCY = (
    Variant("nothing exported", routes=ROUTES),
    Variant("metrics each second", 0.0, "1s", ROUTES),
    Variant("metrics each second, 100 % sampled", 1.0, "1s", ROUTES),
)


def serve(file: str, *, is_silent: bool) -> None:
    """A sidecar process; with `is_silent` its data path has a silent observer."""
    import uvloop

    from sidecar.config.load import load_file
    from sidecar.runtime.worker import Worker
    from tests.support.silent import Silent

    async def run() -> None:
        worker = Worker(load_file(file, {}).snapshot, {})
        if is_silent:
            worker.service.observe = Silent()
        await worker.run()

    uvloop.run(run())


@dataclass(frozen=True, slots=True)
class Process:
    port: int
    probes: int
    pid: int


@contextmanager
def all_started(variants: Sequence[Variant]) -> Iterator[list[Process]]:
    """Every variant, with the upstream and the collector that they share."""
    cores = pick_cores()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sidecar-bench-")))
        upstream, grpc, http = free_ports(3)
        command = [sys.executable, "-m", "tests.bench.upstream", str(upstream)]
        process = stack.enter_context(pinned(command, core=cores.load, log=directory / "upstream.log"))
        await_ok(process, upstream, "/api/small")
        agent = Path(str(importlib.import_module("rotel").__file__)).parent / "rotel-agent"
        endpoints = ("--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}")
        command = [str(agent), "start", *endpoints, "--exporter", "blackhole"]
        stack.enter_context(pinned(command, core=cores.load, log=directory / "rotel.log"))
        yield [_start(stack, variant, upstream, grpc, directory, cores.proxy) for variant in variants]


def _start(
    stack: ExitStack, variant: Variant, upstream: int, collector: int, directory: Path, core: int
) -> Process:
    ports = free_ports(3)
    file = directory / f"{ports[0]}.yaml"
    file.write_text(variant.file(ports, upstream, collector))
    command = [sys.executable, "-m", __spec__.name, "serve", str(file)]
    command += ["--silent"] if variant.is_silent else []
    process = stack.enter_context(pinned(command, core=core, log=file.with_suffix(".log")))
    await_ok(process, ports[2], "/readyz")
    for number in range(1, variant.routes):
        get(ports[0], f"/route-{number}")
    return Process(ports[0], ports[2], process.pid)


@dataclass(frozen=True, slots=True)
class Load:
    requests: int
    p50_us: float
    p99_us: float


def at_rate(port: int, *, connections: int, rps: int, seconds: float) -> Load:
    """h2load over HTTP/1.1 at a fixed rate.

    Raises:
        LoadError: an answer was not 200.
    """
    with tempfile.NamedTemporaryFile("r", prefix="sidecar-bench-") as log:
        command = ["taskset", "-c", str(pick_cores().load), "h2load", "--h1", f"-c{connections}", "-t1"]
        command += [f"--rps={rps / connections}", f"-D{seconds:.0f}", f"--log-file={log.name}"]
        command += [f"--connect-to=127.0.0.1:{port}", f"http://{HOST}/api/small"]
        subprocess.run(command, check=True, capture_output=True)
        rows = [line.split() for line in log]
    if not rows or any(row[1] != "200" for row in rows):
        raise LoadError(f"{len(rows)} answers in {seconds:.0f} s at {rps} rps, not all of them 200")
    times = sorted(int(row[2]) for row in rows)
    return Load(len(rows), quantile(times, 0.5), quantile(times, 0.99))


def measure_cost(rounds: int, seconds: float, rps: int) -> None:
    used: dict[str, list[float]] = {variant.name: [] for variant in COST}
    with all_started(COST) as processes:
        for number in range(-1, rounds):
            for variant, process in _shifted(COST, processes, number):
                before = cpu_seconds([process.pid])
                load = at_rate(process.port, connections=CONNECTIONS, rps=rps, seconds=seconds)
                if number >= 0:
                    spent = cpu_seconds([process.pid]) - before
                    used[variant.name].append(spent / load.requests * 1e6)
        lost = [_dropped(process.probes) for process in processes]
    print(f"{f'CPU µs for each of {rps} rps':<36}{'median':>8}{'least':>8}   least over silent")
    floor = min(used[COST[0].name])  # other work on the machine only ever adds
    for variant, dropped in zip(COST, lost, strict=True):
        each = used[variant.name]
        numbers = f"{statistics.median(each):>8.1f}{min(each):>8.1f}{min(each) - floor:>+20.1f}"
        print(f"{variant.name:<36}{numbers}{f'   {dropped} spans dropped' if dropped else ''}")


def measure_latency(rounds: int, seconds: float) -> None:
    seen: dict[str, list[Load]] = {variant.name: [] for variant in LATENCY}
    with all_started(LATENCY) as processes:
        for number in range(rounds):
            for variant, process in _shifted(LATENCY, processes, number):
                load = at_rate(process.port, connections=1, rps=LATENCY_RPS, seconds=seconds)
                if load.requests < 0.9 * LATENCY_RPS * seconds:
                    raise LoadError(
                        f"{load.requests} answers in {seconds:.0f} s: {LATENCY_RPS} rps not reached"
                    )
                seen[variant.name].append(load)
    print(f"{f'{ROUTES} routes, {LATENCY_RPS} rps':<36}{'p50':>8}{'p99':>8} µs, medians of {rounds} rounds")
    for name, loads in seen.items():
        p50, p99 = (
            statistics.median(one) for one in zip(*[(x.p50_us, x.p99_us) for x in loads], strict=True)
        )
        print(f"{name:<36}{p50:>8.0f}{p99:>8.0f}")


def _shifted(
    variants: Sequence[Variant], processes: Sequence[Process], number: int
) -> list[tuple[Variant, Process]]:
    """Each round starts with another variant, so that none always follows the same one."""
    pairs = list(zip(variants, processes, strict=True))
    shift = number % len(pairs)
    return pairs[shift:] + pairs[:shift]


def _dropped(probes: int) -> int:
    lines = get(probes, "/metrics")[1].decode().splitlines()
    named = [line for line in lines if line.startswith("sidecar_telemetry_dropped") and '"traces"' in line]
    return sum(int(line.rsplit(" ", 1)[1]) for line in named)


def main() -> None:
    parser = argparse.ArgumentParser(description="What telemetry costs a real sidecar process.")
    parser.add_argument("what", choices=["cost", "latency", "serve"])
    parser.add_argument("file", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--silent", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rps", type=int, default=COST_RPS, help="of `cost`; less on a machine that is busy")
    options = parser.parse_args()
    if options.what == "serve":
        serve(options.file, is_silent=options.silent)
    elif options.what == "cost":
        measure_cost(options.rounds, options.seconds, options.rps)
    else:
        measure_latency(options.rounds, options.seconds)


if __name__ == "__main__":
    main()
