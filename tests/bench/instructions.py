"""Instructions of one exchange in Python, counted by valgrind: a figure that other work on the machine leaves alone.

    python -m tests.bench.instructions [CASE…]

The cases are those of `path_cost` and `http2_path_cost`: the data path driven by hand, without sockets and a loop's
turns. Each is played under callgrind, which counts a thousand exchanges after some that make everything known. The
clock is a counter, and only the thread that has the exchanges counts. The start of the process, and what other
threads do, are no part of it: they depend on what else the machine does, and were up to 3 % of the figure.
Instructions are no time: what waits for memory, and what the kernel does, is not in them.
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
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from sidecar.config.load import load_text
from sidecar.runtime.worker import Worker
from sidecar.telemetry import export
from tests.bench import http2_path_cost, path_cost
from tests.support.proxy import HEADER

BEFORE, COUNTED = 600, 1000
"""Exchanges: after so many, everything that is remembered is known."""
BEGIN, END = "getpgrp", "getppid"
"""Functions of C that nothing else calls meanwhile: callgrind begins to count where the one is called, and writes its
count down where the other is."""
UNHURRIED = {"OTEL_BSP_SCHEDULE_DELAY": "3600000", "OTEL_METRICS_EXPORTER": "none"}
"""Spans leave in full batches and at the end alone, however long an exchange takes under valgrind."""
CLOCK_STEP_SECONDS = 1e-5
HTTP2 = {case.name: case for case in http2_path_cost.cases() if case.at_once == 1}
CASES = (*path_cost.REQUESTS, *path_cost.SAMPLED, *path_cost.BESIDE, *(f"HTTP/2 {name}" for name in HTTP2))
_TOTAL = re.compile(r"^summary: (\d+)$", re.MULTILINE)


def counted(case: str) -> int:
    """The instructions of so many exchanges of the case."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "counted")
        command = ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}"]
        command += [f"--zero-before={BEGIN}", f"--dump-before={END}"]
        command += [sys.executable, "-m", "tests.bench.instructions", "--play", case]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True
        )
        first = Path(f"{out}.1-01")
        found = _TOTAL.search(first.read_text()) if first.exists() else None
    if found is None:
        raise SystemExit(f"valgrind tells no count:\n{done.stderr}")
    return int(found[1])


async def play(case: str, log: int) -> None:
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
    call = exchange(worker, case) if name == case else http2_exchange(worker, name)
    for _ in range(BEFORE):
        call()
    os.getpgrp()
    for _ in range(COUNTED):
        call()
    os.getppid()
    worker.service.exchanges.clear()
    await worker.stop()


def exchange(worker: Worker, case: str) -> Callable[[], None]:
    requests, answer = path_cost.REQUESTS.get(case, path_cost.PLAIN)
    return path_cost.exchanges(worker, requests(), answer)


def http2_exchange(worker: Worker, name: str) -> Callable[[], None]:
    """What was said is recorded by as many exchanges as are to be played."""
    http2_path_cost.BATCHES = BEFORE + COUNTED
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
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for case in options.cases:
        if case not in CASES:
            parser.error(f"no case {case!r}: there are {', '.join(CASES)}")
    if options.play:
        gc.disable()
        log = os.open(os.devnull, os.O_WRONLY)
        uvloop.run(play(options.cases[0], log))
        return
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed: apt-get install valgrind")
    for case in options.cases or CASES:
        print(f"{case:<36}{counted(case) / COUNTED:10,.0f} instructions", flush=True)


if __name__ == "__main__":
    main()
