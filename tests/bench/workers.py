"""What further workers bring and cost, and what deaths and reloads cost: python -m tests.bench.workers.

    python -m tests.bench.workers [--seconds 5] [--rounds 5] [--reloads 200] [--deaths 20]

First, the same answers of the sidecar itself (`respond`, so that no upstream takes a core) from 1, 2 and 3 workers,
in alternating rounds: requests a second on the cores that there are, load included, and the CPU time that all its
processes take for each request. The best round counts, since other work on the machine only ever takes away. Where
the load shares the cores, the second is what tells how far it goes. Then the
memory by proportional shares (PSS of /proc/PID/smaps_rollup, see proc(5)): what is shared by fork counts once.

Last, reloads and killed workers under load: the connections that were cut, answers that were wrong, connections that
were refused, and whether a counter ever went back.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.machine import TICK_SECONDS, tree
from tests.support.edits import rename_over
from tests.support.ports import free_ports
from tests.support.process import http_get, sidecar
from tests.support.workers import CLIENTS, kill, load, pod

COUNTS = (1, 2, 3)
HEADER = """\
version: 1
workers: {workers}
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:0"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
"""
CONFIG = (
    HEADER
    + """\
upstreams: {{app: {{endpoints: ["127.0.0.1:1"]}}}}
routes:
- {{name: own, match: {{path: {{prefix: /}}}}, respond: {{status: 200, body: ok}}}}
"""
)
CONNECTIONS = 64
DEATHS_A_WORKER = 5
"""In a minute; one more would end the pod."""


@dataclass(frozen=True, slots=True)
class Round:
    per_second: float
    cpu_us: float
    """For each request, of all its processes."""


@dataclass(slots=True)
class Target:
    """A sidecar with so many workers."""

    workers: int
    root: int
    port: int

    def measure(self, seconds: int) -> Round:
        before, began = _cpu(self.root), time.monotonic()
        answered = wrk(self.port, seconds)
        took = time.monotonic() - began
        return Round(answered / took, (_cpu(self.root) - before) / answered * 1e6)

    def memory_mib(self) -> float:
        """Of all its processes together."""
        return sum(map(_pss_mib, tree(self.root)))


def _cpu(root: int) -> float:
    """User and system seconds of a process and all its descendants."""
    total = 0.0
    for pid in tree(root):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) * TICK_SECONDS
    return total


def _pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no Pss")


def wrk(port: int, seconds: int, connections: int = CONNECTIONS) -> int:
    """Requests that were answered by 200. Raises AssertionError on any error."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://127.0.0.1:{port}/"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "errors" not in text, text
    assert "Non-2xx" not in text, text
    line = next(line for line in text.splitlines() if " requests in " in line)
    return int(line.split()[0])


async def compare(folder: Path, rounds: int, seconds: int) -> None:
    found: dict[int, list[Round]] = {count: [] for count in COUNTS}
    memory: dict[int, float] = {}
    for _ in range(rounds):
        for count in COUNTS:
            inbound, probes = free_ports(2)
            file = folder / f"workers{count}.yaml"
            file.write_text(CONFIG.format(workers=count, inbound=inbound, probes=probes))
            async with sidecar(file, probes, folder / "log") as running:
                target = Target(count, running.process.pid, inbound)
                for _ in range(CONNECTIONS):
                    assert (await http_get(inbound, "/"))[0] == 200
                memory[count] = target.memory_mib()
                found[count].append(await asyncio.to_thread(target.measure, seconds))
    one = max(each.per_second for each in found[1])
    one_cpu = min(each.cpu_us for each in found[1])
    print(
        f"cores: {len(os.sched_getaffinity(0))}, shared with the load; the best of {rounds} rounds of {seconds} s"
    )
    print("workers  requests/s  of one  CPU us/request  of one  MiB (PSS)  further MiB")
    for count in COUNTS:
        rate = max(each.per_second for each in found[count])
        cpu = min(each.cpu_us for each in found[count])
        further = memory[count] - memory.get(count - 1, 0.0)
        print(
            f"{count:7} {rate:11.0f} {rate / one:7.2f} {cpu:15.1f} {cpu / one_cpu:7.2f}"
            f" {memory[count]:10.1f} {further:12.1f}"
        )


async def trouble(folder: Path, reloads: int, deaths: int) -> bool:
    """Whether all that was to hold has held."""
    workers = max(2, -(-deaths // DEATHS_A_WORKER))
    async with pod(folder, workers=workers) as one:
        text = one.file.read_text()
        async with load(one.inbound) as clients:
            counted = await one.served()
            has_gone_back = False
            began = time.monotonic()
            for number in range(reloads):
                rename_over(one.file, f"{text}# {number}\n")
                assert (await one.ask("/reload", "POST"))["is_success"]
                assert set(await one.generations()) == {number + 2}
            reload_seconds = time.monotonic() - began
            cut_by_reloads = clients.cut
            had = 0
            for death in range(deaths):
                had += await kill(one, str(death % workers + 1))
                before, counted = counted, await one.served()
                has_gone_back |= counted < before
            cut = clients.cut
        print(
            f"{workers} workers, {CLIENTS} clients, {clients.answered} answers, {clients.wrong} of them wrong"
        )
        print(
            f"{reloads} reloads, each in all workers, {reload_seconds / max(1, reloads) * 1e3:.0f} ms each: ",
            end="",
        )
        print(f"{cut_by_reloads} connections cut")
        print(f"{deaths} deaths: {cut - cut_by_reloads} connections cut of {had} that the dead had, ", end="")
        print(f"{clients.refused} refused")
        print(f"a counter went back: {'yes' if has_gone_back else 'never'}")
        is_own = cut - cut_by_reloads <= had
        return is_own and not (clients.wrong or clients.refused or cut_by_reloads or has_gone_back)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--deaths", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        if options.rounds:
            asyncio.run(compare(Path(name), options.rounds, options.seconds))
        return 0 if asyncio.run(trouble(Path(name), options.reloads, options.deaths)) else 1


if __name__ == "__main__":
    sys.exit(main())
