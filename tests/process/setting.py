"""A configuration file on free ports, for a sidecar process in front of an app of the test's."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_ports
from tests.support.process import Running, sidecar

COMMAND = (sys.executable, "-m", "sidecar", "run")


@dataclass
class Served:
    """A sidecar process that is ready, with the port that its traffic comes in by."""

    process: Running
    port: int

    async def metric(self, start: str) -> float:
        """The value of the first sample whose line starts with `start`; 0 if there is none yet."""
        _, text = await self.process.get("/metrics")
        for line in text.splitlines():
            if line.startswith(start):
                return float(line.rpartition(" ")[2])
        return 0.0


def written(
    folder: Path,
    app: int,
    *,
    route: str = "",
    top: str = "",
    delay: str = "0s",
    upstream: str = "",
    listener: str = "",
) -> tuple[Path, int, int]:
    """Write `sidecar.yaml`: its path, the inbound port and the probes' port. No `delay`, or each test has it too.

    `listener`: further keys of the inbound one.
    """
    inbound, probes, admin = free_ports(3)
    file = folder / "sidecar.yaml"
    file.write_text(f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"{f", {listener}" if listener else ""}}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: {delay}}}
{top}
upstreams: {{app: {{endpoints: ["127.0.0.1:{app}"]{f", {upstream}" if upstream else ""}}}}}
routes: [{{name: app, upstream: app{f", {route}" if route else ""}}}]
""")
    return file, inbound, probes


@asynccontextmanager
async def served(
    folder: Path,
    app: int,
    *,
    route: str = "",
    top: str = "",
    delay: str = "0s",
    upstream: str = "",
    listener: str = "",
) -> AsyncIterator[Served]:
    """Run a sidecar process in front of the app on port `app`."""
    more = {"route": route, "top": top, "delay": delay, "upstream": upstream, "listener": listener}
    file, inbound, probes = written(folder, app, **more)
    async with sidecar(file, probes, folder / "sidecar.log") as process:
        yield Served(process, inbound)


@dataclass(frozen=True)
class Way:
    """From a listener of its own by a route of its own to an upstream at these ports; all have one name. `route` and
    `upstream`: further keys."""

    ports: Sequence[int]
    route: str = ""
    upstream: str = ""


@asynccontextmanager
async def several(
    folder: Path, ways: Mapping[str, Way], shadows: Mapping[str, Way] | None = None
) -> AsyncIterator[dict[str, Served]]:
    """One sidecar process with several ways through it, which tests may take as if each had a sidecar to itself.
    `shadows`: upstreams without a way to them."""
    probes, admin, *ports = free_ports(2 + len(ways))
    inbound = dict(zip(ways, ports, strict=True))
    listeners = "".join(
        f'  {name}: {{address: "127.0.0.1:{port}", direction: inbound}}\n' for name, port in inbound.items()
    )
    upstreams = "".join(
        f"  {name}: {{endpoints: {json.dumps([f'127.0.0.1:{port}' for port in way.ports])}{_more(way.upstream)}}}\n"
        for name, way in {**ways, **(shadows or {})}.items()
    )
    routes = "".join(
        f"- {{name: {name}, listener: {name}, upstream: {name}{_more(way.route)}}}\n"
        for name, way in ways.items()
    )
    file = folder / "sidecar.yaml"
    file.write_text(f"""\
version: 1
listeners:
{listeners}\
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
upstreams:
{upstreams}\
routes:
{routes}""")
    async with sidecar(file, probes, folder / "sidecar.log") as process:
        yield {name: Served(process, port) for name, port in inbound.items()}


def _more(keys: str) -> str:
    return f", {keys}" if keys else ""


async def ended(*arguments: str | Path) -> tuple[int, str, str]:
    """Run `sidecar run` to its own end: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()
