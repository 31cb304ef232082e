"""What each kind of traffic leaves behind: python -m tests.bench.soak.by_kind [--events N] [--rounds N] [KIND ...].

One sidecar for each kind. In each round so many clients of that kind come and go. When all have left, everything
that is dead is collected in a copy of the process, and told is what is left there: Python's blocks in use, bytes that
malloc has given out and bytes that it keeps; how many dead objects only a collection of all has found; and what is
resident in the process itself. Where an event leaves something behind, the blocks grow in each round; where memory
only lies in pieces, resident memory grows and they do not. At the end, the types of which there are more than after
the second round.

With PYTHONTRACEMALLOC=1 in the environment the lines of code that hold more than a round before are told too; memory
is then no measure any more.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.soak.__main__ import FILE, PORTS, edited
from tests.bench.soak.growth import MIB
from tests.bench.soak.places import surroundings
from tests.bench.soak.samples import Watch
from tests.bench.soak.traffic import Clients
from tests.support.ports import free_ports
from tests.support.process import admin, http_get, sidecar

AT_ONCE = 40
QUIET_SECONDS = 2.0
"""After the last client of a round has left, until it is looked at what is left."""
PATHS = ("flap", "gone", "stream", "nowhere")
ONE_FOR = {"reload": 200, "bad reload": 200, "operator": 20, "scrape": 10}
"""Events of these are fewer: one for so many of the others."""
ONE_BY_ONE = frozenset({"reload", "bad reload"})
LEAST_GROWN = 8

Act = Callable[[], Awaitable[None]]


class Kinds(Clients):
    """The clients of the soak, and its other events as kinds."""

    def __init__(self, ports: dict[str, int], file: Path) -> None:
        super().__init__(ports["inbound"], ports["outbound"], random.Random(11))
        self._ports = ports
        self._file = file
        self._text = FILE.format(**ports)
        self._number = 0

    def acts(self) -> dict[str, Act]:
        """By name."""
        return {
            **{name: act for name, (_, act) in self.kinds().items()},
            **{path: partial(self.get, b"/" + path.encode()) for path in PATHS},
            "reload": self.reload,
            "bad reload": self.bad_reload,
            "operator": self.operator,
            "scrape": self.scrape,
        }

    async def reload(self) -> None:
        """Another file each time, and never a bad one."""
        self._number += 1
        await self._offer(edited(self._text, self._number % 4))

    async def bad_reload(self) -> None:
        await self._offer(edited(self._text, 4))

    async def _offer(self, text: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(text)
        new.replace(self._file)
        await admin(self._ports["admin"], "POST", "/reload")

    async def operator(self) -> None:
        for path in ("/status", "/routes", "/breakers", "/upstreams", "/config"):
            await admin(self._ports["admin"], "GET", path)

    async def scrape(self) -> None:
        await http_get(self._ports["probes"], "/metrics")


async def run_kind(name: str, events: int, rounds: int) -> None:
    """All rounds of one kind, with a sidecar of its own."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    with tempfile.TemporaryDirectory(prefix="sidecar-kind-") as written:
        folder = Path(written)
        file, door = folder / "sidecar.yaml", folder / "door"
        file.write_text(FILE.format(**ports))
        os.environ["SOAK_LOOK"] = str(door)
        command = ("-m", "tests.bench.soak.looked_at")
        async with (
            surroundings(ports["good"], ports["flapping"], ports["gone"], ports["collector"]),
            sidecar(file, ports["probes"], folder / "log", command) as running,
        ):
            clients = Kinds(ports, file)
            watch = Watch(running.process.pid, ports["probes"], door)
            looks = [await one_round(name, events, clients, watch)]
            for number in range(1, rounds):
                looks.append(await one_round(name, events, clients, watch))
                print(line(name, number, events, looks[-2], looks[-1]), flush=True)
    print(f"{name:18} grown: {grown(looks) or 'nothing'}; clients: {dict(clients.done)}", flush=True)


async def one_round(name: str, events: int, clients: Kinds, watch: Watch) -> dict[str, Any]:
    """So many of them; what was held then."""
    gate = asyncio.Semaphore(1 if name in ONE_BY_ONE else AT_ONCE)
    act = clients.acts()[name]
    began = time.monotonic()

    async def one() -> None:
        async with gate:
            await clients.one(name, act)

    await asyncio.gather(*(one() for _ in range(events)))
    seconds = time.monotonic() - began
    await asyncio.sleep(QUIET_SECONDS)
    return await watch.held() | {"seconds": seconds}


def line(name: str, number: int, events: int, before: dict[str, Any], now: dict[str, Any]) -> str:
    """One round."""
    text = (
        f"{name:18} round {number}: {events:,} in {now['seconds']:.1f} s"
        f"  blocks {now['blocks']:,} ({(now['blocks'] - before['blocks']) / events:+.2f} an event)"
        f"  malloc {now['malloc'] / MIB:.2f} MiB, kept {now['kept'] / MIB:.2f}"
        f"  resident {now['resident'] / MIB:.2f} MiB  dead {now['dead']:,}"
    )
    if now["dead"]:
        text += f" {now['dead_types']}"
    return "\n    ".join([text, *now["lines"]])


def grown(looks: list[dict[str, Any]]) -> str:
    """Types of which there are more at the end than after the second round."""
    then, now = looks[min(1, len(looks) - 1)]["types"], looks[-1]["types"]
    return ", ".join(
        f"{kind} {then.get(kind, 0):,} -> {count:,}"
        for kind, count in now.items()
        if count - then.get(kind, 0) > LEAST_GROWN
    )


def main() -> None:
    names = list(Kinds(dict.fromkeys(PORTS, 0), Path()).acts())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help=f"one of: {', '.join(names)}; all without any"
    )
    parser.add_argument("--events", type=int, default=2000, help="of most kinds, in each round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for name in options.kinds or names:
        events = max(1, options.events // ONE_FOR.get(name, 1))
        uvloop.run(run_kind(name, events, max(2, options.rounds)))


if __name__ == "__main__":
    sys.exit(main())
