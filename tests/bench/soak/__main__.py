"""A long life under mixed traffic: python -m tests.bench.soak [--minutes 60] [--rate 60] [--every 10] [--pace 1].

A real sidecar with the clients, apps and events of a bad day: requests of every kind, clients that leave, slow
readers, unfinished heads and nonsense; an app that is ill every few seconds, so that breakers open and close; an app
and a collector that come and go; a reload every 20 s, of which some are bad; and an operator who looks. `--pace 3`
has reloads, illness and absence three times as often.

Prints resident memory, descriptors, threads, tasks and counters every ten seconds. At the end a line is laid through
the second half of each, and told is where memory lies at half time and at the end (Python's arenas, malloc), of which
types there are more objects, who holds more bytes, which caches have filled up further, what is dead and kept, and
what is left when everybody has gone. The outcomes that are kept for `sidecar tune`, 24 bytes a request, fill up to
their limit of 8 MiB and stand apart. Exit code 1 if the rest of memory grew by more than the bound, or something is
left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.soak import growth
from tests.bench.soak.places import surroundings
from tests.bench.soak.samples import Sample, Watch
from tests.bench.soak.traffic import Clients
from tests.support.ports import free_ports
from tests.support.process import Running, admin, http_get, sidecar

RELOAD_SECONDS = 20.0
BAD_EVERY = 5
"""Reloads: one of so many is a file that is refused."""
REST_SECONDS = 5.0
"""After the last client has left, until what is left is looked at."""
LOOKS, LOOK_SECONDS = 40, 0.5
LEAST_LATE = 5
"""Samples of the second half: on a busy machine a short soak goes on until it has them."""
PORTS = ("inbound", "outbound", "admin", "probes", "collector", "good", "flapping", "gone", "nobody")
FILE = """\
version: 1
listeners:
  inbound: {{address: "127.0.0.1:{inbound}", timeouts: {{idle: 20s}}}}
  outbound: {{address: "127.0.0.1:{outbound}"}}
admin: {{address: "127.0.0.1:{admin}"}}
probes: {{address: "127.0.0.1:{probes}"}}
drain: {{delay: 0s}}
telemetry:
  service_name: soak
  otlp: {{endpoint: "http://127.0.0.1:{collector}", protocol: http/protobuf}}
  traces: {{sample_ratio: 0.2}}
  metrics: {{interval: 5s}}
  access_log: {{sample_ratio: 2%}}
upstreams:
  good: {{endpoints: ["127.0.0.1:{good}"], timeouts: {{idle: 10s}}}}
  flapping: {{endpoints: ["127.0.0.1:{flapping}"]}}
  gone: {{endpoints: ["127.0.0.1:{gone}", "127.0.0.1:{nobody}"], timeouts: {{connect: 1s}}}}
defaults: {{timeouts: {{request: 5s}}, circuit_breaker: {{open_for: 1s, max_open_for: 3s, minimum_calls: 5}}}}
routes:
- {{name: flap, match: {{path: {{prefix: /flap}}}}, upstream: flapping}}
- {{name: gone, match: {{path: {{prefix: /gone}}}}, upstream: gone, fallback: {{status: 200, body: later}}}}
- {{name: nowhere, match: {{path: {{prefix: /nowhere}}, headers: {{x-never: sent}}}}, upstream: good}}
- {{name: app, upstream: good}}
- {{name: out, listener: outbound, upstream: good}}
"""


def edited(text: str, number: int) -> str:
    """The file as the `number`th reload finds it: a policy changed, a route and an upstream more or less, or bad."""
    if number % BAD_EVERY == BAD_EVERY - 1:
        return text + "  nonsense: {\n"
    text = text.replace("request: 5s", f"request: {5 + number % 7}s")
    if number % 2:
        text += f'- {{name: "more{number % 3}", match: {{hosts: ["h{number % 3}"]}}, upstream: good}}\n'
    return text


async def change(running: Running, file: Path, text: str, admin_port: int, every: float) -> None:
    """Reloads, by the watched file and by the admin API in turns, and an operator who looks at everything."""
    number = 0
    while True:
        await asyncio.sleep(every)
        number += 1
        new = file.with_suffix(".new")
        new.write_text(edited(text, number))
        new.replace(file)
        with contextlib.suppress(OSError, ValueError, IndexError):
            if number % 2:
                await admin(admin_port, "POST", "/reload")
            for path in ("/status", "/routes", "/breakers", "/upstreams", "/config"):
                await admin(admin_port, "GET", path)
            await listen(admin_port)


async def listen(admin_port: int) -> None:
    """Read events for a moment, as a page does that is opened and closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", admin_port)
    try:
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.read(100)
    finally:
        writer.close()  # the load may end right here: a page that stayed open would be found as left behind


async def soak(options: argparse.Namespace, directory: Path) -> int:
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    text = FILE.format(**ports)
    file, door = directory / "sidecar.yaml", directory / "door"
    file.write_text(text)
    os.environ["SOAK_LOOK"] = str(door)
    command = ("-m", "tests.bench.soak.looked_at")
    async with (
        surroundings(ports["good"], ports["flapping"], ports["gone"], ports["collector"], options.pace),
        sidecar(file, ports["probes"], directory / "log", command) as running,
    ):
        watch = Watch(running.process.pid, ports["probes"], door)
        before = await watch.sample()
        print("before the load", before.line(), sep="\n", flush=True)
        clients = Clients(ports["inbound"], ports["outbound"])
        changing = asyncio.create_task(
            change(running, file, text, ports["admin"], RELOAD_SECONDS / options.pace)
        )
        samples, halfway = await watched(watch, clients, options.minutes * 60, options.rate, options.every)
        changing.cancel()
        await clients.end()
        await asyncio.sleep(REST_SECONDS)
        after = await rested(watch, before)
        held = await watch.held()
        _, ready = await http_get(ports["probes"], "/readyz")
    print("after the load", after.line(), sep="\n")
    print(f"clients: {', '.join(f'{name} {count:,}' for name, count in sorted(clients.done.items()))}")
    return tell(samples, before, after, halfway, held) or int("ok" not in ready)


async def rested(watch: Watch, before: Sample) -> Sample:
    """A sample once nothing is left of the load, or the last one: what a busy machine has under way takes longer than
    the rest before it."""
    for _ in range(LOOKS):
        after = await watch.sample()
        if not left_behind(before, after):
            break
        await asyncio.sleep(LOOK_SECONDS)
    return after


def left_behind(before: Sample, after: Sample) -> dict[str, tuple[float, float]]:
    """What there is more of than before the load, that should have ended with it."""
    return {
        name: (before.values[name], after.values[name])
        for name in ("tasks", "active", "pending")
        if after.values[name] > before.values[name]
    }


async def watched(
    watch: Watch, clients: Clients, seconds: float, rate: float, every: float
) -> tuple[list[Sample], dict[str, Any]]:
    """Load for so long; the samples, and what was held at half time."""
    started = watch.started = time.monotonic()
    samples: list[Sample] = []

    def is_over() -> bool:
        return (
            time.monotonic() >= started + seconds
            and bool(samples)
            and len(growth.second_half(samples)) >= LEAST_LATE
        )

    loading = asyncio.create_task(clients.load(rate, is_over))
    halfway: asyncio.Task[dict[str, Any]] | None = None
    while not loading.done():
        await asyncio.wait([loading], timeout=every)
        if halfway is None and time.monotonic() >= started + seconds / 2:
            halfway = asyncio.create_task(watch.held())  # a copy of the process looks for as long as it takes
        samples.append(await watch.sample())
        print(samples[-1].line(), flush=True)
    await loading
    return samples, await (halfway or watch.held())


def tell(
    samples: list[Sample], before: Sample, after: Sample, halfway: dict[str, Any], held: dict[str, Any]
) -> int:
    """Print what grew and what is left; 1 if either is too much."""
    lines = growth.slopes(samples)
    print("\nslopes of the second half, an hour (± two standard errors)")
    for name, line in lines.items():
        print(f"  {name}: {line.an_hour:+.2f} ± {2 * line.error:.2f}")
    print(growth.verdict(lines, seconds=samples[-1].at))
    for when, look in (("at half time", halfway), ("at the end", held)):
        dead = ", ".join(f"{name} {count:,}" for name, count in look["dead_types"].items())
        in_use, kept = look["malloc"] / growth.MIB, look["kept"] / growth.MIB
        print(
            f"malloc {when}: {in_use:.2f} MiB in use, {kept:.2f} kept; {look['blocks']:,} blocks of Python's"
        )
        print(
            f"put away by gc.freeze {when}: {look['frozen']:,} objects; dead and kept: {look['dead']:,} ({dead})"
        )
        print(f"  {growth.allocated(look)}")
    for line in growth.told(halfway, held):
        print(f"  grown: {line}")
    is_over = abs(lines["rest MiB"].an_hour) > growth.MOST_MIB_AN_HOUR
    left = left_behind(before, after)
    for name, (was, now) in left.items():
        print(f"left behind: {name} {was:.0f} -> {now:.0f}")
    if "tasks" in left:
        print(f"  tasks: {', '.join(held['task_names'])}")
    return int(is_over or bool(left))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=60.0, help="clients a second, of all kinds")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two samples")
    parser.add_argument(
        "--pace", type=float, default=1.0, help="reloads, illness and absence so many times as often"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sidecar-soak-") as name:
        return uvloop.run(soak(options, Path(name)))


if __name__ == "__main__":
    sys.exit(main())
