"""Reloads under load, at full scale: python -m tests.bench.reload [--seconds 60] [--reloads 200] [--rps 2000].

A sidecar serves a fixed rate, in turns untouched and through reloads, for as long each: all four ways of editing,
every tenth file bad, routes and upstreams added and removed. Then, in this process, a configuration of 1,000 routes
is changed again and again under a heartbeat of the event loop.

Prints one figure a line, with what it may be at most. Exit code 1 if one is over, or a request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

from sidecar.config.load import load_file
from sidecar.runtime import memory
from sidecar.runtime.worker import Worker
from tests.bench.load import quantile
from tests.process.test_reload import BAD, BASE, ROUTES, breaker_lines, trip, variant
from tests.support.edits import change, config_map
from tests.support.ports import free_ports
from tests.support.process import Running, sidecar
from tests.support.traffic import Traffic, traffic

CONNECTIONS = 32
WARM_UP_SECONDS = 5.0
TURNS = 12
ROUTES_OF_HEARTBEAT = 1000
RELOADS_OF_HEARTBEAT = 12


@dataclass(frozen=True)
class Figure:
    """One result; `most` is what it may be, infinity where it is only told."""

    name: str
    value: float
    most: float = math.inf

    def __str__(self) -> str:
        bound = "" if self.most == math.inf else f" (at most {self.most:g})"
        return f"{'ok ' if self.value <= self.most else 'BAD'}  {self.name}: {self.value:.3g}{bound}"


async def under_load(options: argparse.Namespace, directory: Path) -> list[Figure]:
    """Traffic with and without reloads."""
    inbound, probes, dead, app = free_ports(4)
    base = BASE.format(inbound=inbound, probes=probes, app=app, dead=dead)
    base = base.replace("open_for: 50s", "open_for: 3000s, max_open_for: 3000s")
    upstream = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.bench.upstream", str(app))
    file = config_map(directory / "map", base + ROUTES)
    try:
        async with (
            sidecar(file, probes, directory / "log") as running,
            traffic(inbound, ["/app"], connections=CONNECTIONS, per_second=options.rps) as record,
        ):
            before = await trip(running, inbound)
            await asyncio.sleep(WARM_UP_SECONDS)
            memory_before = running.memory_kib()
            calm, busy, count = [], [], 0
            started = time.monotonic()
            for turn in range(TURNS):  # in turns, so that other work on the machine falls on both
                record.take_seconds()
                await asyncio.sleep(options.seconds / TURNS)
                calm.append(_p99_us(record.take_seconds()))
                numbers = range(turn * options.reloads // TURNS, (turn + 1) * options.reloads // TURNS)
                gap = options.seconds / options.reloads
                count += await asyncio.to_thread(reload_often, running, file, base, numbers, gap)
                busy.append(_p99_us(record.take_seconds()))
            took = time.monotonic() - started
            memory_after = running.memory_kib()
            is_same = await breaker_lines(running) == before
    finally:
        upstream.kill()
        await upstream.wait()
    return [
        *figures(record, calm, busy),
        Figure("reloads missing", options.reloads - count, 0),
        Figure("breaker of an unchanged route moved", float(not is_same), 0),
        Figure("memory after, share of before", memory_after / memory_before, 1.05),
        Figure(f"seconds for both (memory {memory_before} → {memory_after} KiB)", took, 1e6),
    ]


def figures(record: Traffic, calm: list[float], busy: list[float]) -> list[Figure]:
    p99_calm, p99_busy = statistics.median(calm), statistics.median(busy)
    for failure in record.failures[:5]:
        print(failure)
    return [
        Figure(f"failed of {record.requests} requests", len(record.failures), 0),
        Figure(f"p99 with reloads / without ({p99_busy:.0f} / {p99_calm:.0f} µs)", p99_busy / p99_calm, 1.5),
    ]


def _p99_us(ordered_seconds: list[float]) -> float:
    return quantile([int(1e6 * one) for one in ordered_seconds], 0.99)


def reload_often(running: Running, file: Path, base: str, numbers: range, gap: float) -> int:
    """Edit, wait until it is taken or refused, and edit again; how many reloads there were.

    In a thread: the loop that sends the requests and takes their times is not to do this too.
    """
    started = time.monotonic()
    count = 0
    with running.log.open() as log:
        log.read()
        for done, number in enumerate(numbers, 1):
            is_bad = number % 10 == 9
            change(file, number, f"{BAD} # {number}" if is_bad else variant(base, number))
            if is_bad:  # or its second of patience would be most of the time
                time.sleep(gap / 2)
                running.process.send_signal(signal.SIGHUP)
            while count < done:
                time.sleep(0.02)
                count += log.read().count('"kind":"config.reload"')
            time.sleep(max(0.0, started + gap * done - time.monotonic()))
    return count


async def heartbeat(directory: Path) -> list[Figure]:
    """The longest time that the loop was held while 1,000 routes were reloaded, and how long a change takes."""
    file = directory / "many.yaml"
    text = many_routes()
    file.write_text(text)
    with (directory / "events").open("wb") as log:
        worker = Worker(load_file(file).snapshot, os.environ, path=str(file), log_fd=log.fileno())
        await worker.start()
        memory.settle_all()
        gaps: list[float] = []
        beating = asyncio.create_task(_beat(gaps))
        try:
            slowest = 0.0
            for number in range(RELOADS_OF_HEARTBEAT):
                generation = worker.control.active.generation
                text = (
                    text.replace("open_for: 3s", "open_for: 4s")
                    if number == 6
                    else _one_changed(text, number)
                )
                file.write_text(text)
                started = time.monotonic()
                while worker.control.active.generation == generation:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                slowest = max(slowest, time.monotonic() - started)
        finally:
            beating.cancel()
            await worker.stop()
    return [
        Figure(f"loop held while {ROUTES_OF_HEARTBEAT} routes were reloaded, ms", max(gaps) * 1000, 20),
        Figure("a change of one route among them is live after, s", slowest, 1.5),
    ]


def many_routes() -> str:
    lines = ["version: 1", "telemetry: {access_log: {format: 'off'}}"]
    lines += [f"{name}: {{address: '127.0.0.1:0'}}" for name in ("probes", "admin")]
    lines += ["listeners: {inbound: {address: '127.0.0.1:0'}}", "upstreams:"]
    numbers = range(ROUTES_OF_HEARTBEAT)
    lines += [f"  u{number}: {{endpoints: ['127.0.0.1:{10000 + number}']}}" for number in numbers]
    lines += ["routes:"]
    for number in numbers:
        match = (
            f"{{hosts: [h{number}.example, '*.h{number}.svc'], path: {{prefix: /v{number}}}, methods: [GET]}}"
        )
        policies = "timeouts: {request: 2s}, circuit_breaker: {open_for: 3s}"
        lines.append(f"- {{name: r{number}, match: {match}, upstream: u{number}, {policies}}}")
    return "\n".join(lines) + "\n"


def _one_changed(text: str, number: int) -> str:
    return text.replace("request: 2s", f"request: {number + 3}s", 1)


async def _beat(gaps: list[float]) -> None:
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        gaps.append(now - last)
        last = now


async def main(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        found = await heartbeat(Path(name))
        if not options.heartbeat:
            found += await under_load(options, Path(name))
    print("\n".join(map(str, found)))
    return 0 if all(figure.value <= figure.most for figure in found) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--rps", type=float, default=2000.0)
    parser.add_argument("--heartbeat", action="store_true", help="that part alone")
    sys.exit(uvloop.run(main(parser.parse_args())))
