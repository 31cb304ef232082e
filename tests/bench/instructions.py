"""Instructions of one exchange in Python, counted by valgrind: a figure that other work on the machine leaves alone.

    python -m tests.bench.instructions [CASE…]

The cases are those of `path_cost` and `http2_path_cost`: the data path driven by hand, without sockets and a loop's
turns. Each is played twice under cachegrind, with a thousand exchanges more the second time, and the difference is
what these took; so the start of the process does not count. The clock is a counter, so that the same code gives the
same figure within 0.2 %. Instructions are no time: what waits for memory, and what the kernel does, is not in them.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import uvloop

from sidecar.config.load import load_text
from sidecar.runtime.worker import Worker
from sidecar.telemetry import export
from tests.bench import http2_path_cost, path_cost
from tests.support.proxy import HEADER

FEW, MANY = 600, 1600
"""Exchanges of the two runs: after so few, everything that is remembered is known."""
UNHURRIED = {"OTEL_BSP_SCHEDULE_DELAY": "3600000", "OTEL_METRICS_EXPORTER": "none"}
"""Spans leave in full batches and at the end alone, however long an exchange takes under valgrind."""
CLOCK_STEP_SECONDS = 1e-5
HTTP2 = {case.name: case for case in http2_path_cost.cases() if case.at_once == 1}
CASES = (*path_cost.REQUESTS, *path_cost.SAMPLED, *path_cost.BESIDE, *(f"HTTP/2 {name}" for name in HTTP2))
_COUNTED = re.compile(r"I\s+refs:\s+([\d,]+)")


def counted(case: str, exchanges: int) -> int:
    """All instructions of a process that makes so many."""
    command = [
        "valgrind",
        "--tool=cachegrind",
        "--cache-sim=no",
        "--cachegrind-out-file=/dev/null",
        sys.executable,
    ]
    command += ["-m", "tests.bench.instructions", "--play", str(exchanges), case]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True
    )
    found = _COUNTED.search(done.stderr)
    if found is None:
        raise SystemExit(f"valgrind tells no count:\n{done.stderr}")
    return int(found[1].replace(",", ""))


async def play(case: str, exchanges: int, log: int) -> None:
    clock = itertools.count(time.monotonic(), CLOCK_STEP_SECONDS).__next__
    name = case.removeprefix("HTTP/2 ")
    config = http2_path_cost.CONFIG_HTTP2
    header, environ = HEADER, {}
    if case in path_cost.SAMPLED:
        header, environ = path_cost.recorded(case), UNHURRIED
        export.make_sink = lambda *_, **__: path_cost.Nowhere()
    if case in path_cost.BESIDE:
        config = path_cost.beside(case)
    elif name == case:
        config = path_cost.CONFIG
    worker = Worker(load_text(header + config).snapshot, environ, log_fd=log, clock=clock)
    await worker.start()
    call = exchange(worker, case) if name == case else http2_exchange(worker, name, exchanges)
    for _ in range(exchanges):
        call()
    worker.service.exchanges.clear()
    await worker.stop()


def exchange(worker: Worker, case: str) -> Callable[[], None]:
    requests, answer = path_cost.REQUESTS.get(case, path_cost.PLAIN)
    return path_cost.exchanges(worker, requests(), answer)


def http2_exchange(worker: Worker, name: str, exchanges: int) -> Callable[[], None]:
    """What was said is recorded by as many exchanges as are to be played, in both runs."""
    http2_path_cost.BATCHES = MANY
    case = HTTP2[name]
    http2_path_cost.record(worker, case)
    between = http2_path_cost.Between(worker)
    pairs = zip(case.requests, case.answers, strict=True)
    for request, answer in itertools.islice(pairs, http2_path_cost.GREETINGS):
        between.from_client(request)
        between.from_origin(answer)

    def call() -> None:
        request, answer = next(pairs)
        between.from_client(request)
        between.from_origin(answer)

    return call


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "cases", metavar="CASE", nargs="*", help=f"of {', '.join(CASES)}; all, where none is given"
    )
    parser.add_argument("--play", type=int, metavar="EXCHANGES", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for case in options.cases:
        if case not in CASES:
            parser.error(f"no case {case!r}: there are {', '.join(CASES)}")
    if options.play is not None:
        gc.disable()
        log = os.open(os.devnull, os.O_WRONLY)
        uvloop.run(play(options.cases[0], options.play, log))
        return
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed: apt-get install valgrind")
    for case in options.cases or CASES:
        took = (counted(case, MANY) - counted(case, FEW)) / (MANY - FEW)
        print(f"{case:<36}{took:10,.0f} instructions", flush=True)


if __name__ == "__main__":
    main()
