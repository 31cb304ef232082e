"""The sidecars of the demo: real `sidecar run` processes, started, watched through their admin API, and ended.

Each is the leader of a session of its own, so that Ctrl-C in the terminal reaches the demo alone, which ends them,
and so that nothing a sidecar started can outlive it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from sidecar.core.program import command

START_SECONDS = 20.0
END_SECONDS = 3.0
_held: list[socket.socket] = []
"""What keeps the ports of this process; a demo asks for them once."""


class DemoFailed(Exception):
    """The demo cannot be set up; the message says why."""


@dataclass(frozen=True)
class Change:
    """One transition of a breaker, as `/events` told it."""

    route: str
    from_state: str
    to_state: str
    reason: str
    wait_seconds: float | None
    at: float
    """When it was heard of; monotonic seconds."""


@dataclass(frozen=True)
class Ports:
    inbound: int
    outbound: int
    admin: int
    probes: int


@dataclass(frozen=True)
class App:
    """Who is asked on a port, and how."""

    port: int
    protocol: str = "http1"
    offset: str = "5ms"
    """How long before its callers' end it is to answer; a gRPC server, whose timers have milliseconds, twice that."""


class Sidecar:
    """One process beside one service."""

    def __init__(self, name: str, ports: Ports, folder: Path) -> None:
        self.name = name
        self.ports = ports
        self.file = folder / f"{name}.yaml"
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.ports.admin}"

    @property
    def inbound(self) -> str:
        return f"http://127.0.0.1:{self.ports.inbound}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def write(
        self,
        app: App,
        neighbour: tuple[str, App],
        breaker_mode: str,
        otlp: str | None,
        tls: tuple[str, str] = ("", ""),
    ) -> None:
        """Its configuration: the template, filled in. `tls`: further keys of its inbound listener,
        and of the upstream that leads to its neighbour."""
        template = Template((resources.files("sidecar.demo") / "sidecar.yaml").read_text())
        values = {
            **{key: getattr(self.ports, key) for key in ("inbound", "outbound", "admin", "probes")},
            "name": self.name, "app": app.port, "app_protocol": app.protocol, "offset": app.offset,
            "neighbour": neighbour[0], "next": neighbour[1].port, "next_protocol": neighbour[1].protocol,
            "breaker_mode": breaker_mode, "inbound_tls": tls[0], "next_tls": tls[1],
            "telemetry": json.dumps(_telemetry(self.name, otlp)),
        }  # fmt: skip
        self.file.write_text(template.substitute(values))

    def start(self) -> None:
        """Start it; at once, so that a cancellation cannot come between the birth of a process and its record."""
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                command("sidecar", "run", str(self.file)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def is_ready(self, session: ClientSession) -> None:
        """Wait for it. Raises: DemoFailed."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ClientError, OSError):
                async with session.get(f"http://127.0.0.1:{self.ports.probes}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)
        raise DemoFailed(f"the sidecar of {self.name} does not start:\n{self.log.read_text()[-2000:]}")

    async def end(self) -> None:
        """SIGTERM, and SIGKILL for what is left after a while."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        until = time.monotonic() + END_SECONDS
        while self._process.poll() is None and time.monotonic() < until:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.02)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def breaker(self, session: ClientSession, route: str) -> dict[str, Any]:
        """The state of a route's breaker."""
        async with session.get(f"{self.admin}/breakers/{route}") as answer:
            answer.raise_for_status()
            state: dict[str, Any] = (await answer.json())["breakers"][0]
            return state

    async def override(self, session: ClientSession, route: str, action: str) -> None:
        """Hold a route's breaker `open`, or end that by `auto`."""
        async with session.post(f"{self.admin}/breakers/{route}/{action}?by=demo") as answer:
            answer.raise_for_status()

    async def follow(self, session: ClientSession, heard: Callable[[Change], None]) -> None:
        """Tell every transition, from the first to the end of the process."""
        with contextlib.suppress(ClientError, OSError):
            forever = ClientTimeout(total=None)
            async with session.get(f"{self.admin}/events", timeout=forever) as stream:
                kind = ""
                async for line in stream.content:
                    name, _, value = line.decode().rstrip("\n").partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data" and kind == "transition":
                        heard(_change(json.loads(value)))


def _change(data: dict[str, Any]) -> Change:
    return Change(
        data["route"], data["from"], data["to"], data["reason"], data["wait_seconds"], time.monotonic()
    )


def _telemetry(name: str, otlp: str | None) -> dict[str, Any]:
    telemetry: dict[str, Any] = {"service_name": name, "traces": {"sample_ratio": 1.0}}
    if otlp is not None:
        protocol = "http/protobuf" if ":4318" in otlp else "grpc"
        telemetry["otlp"] = {"endpoint": otlp, "protocol": protocol}
    return telemetry


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody else is given before they are listened on, nor after that one has ended: another
    demo would be, or an outgoing connection. They are this process's as long as it runs; with `SO_REUSEADDR`, which
    servers set, another one may listen where nobody does yet."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))  # without that option, so that nobody has it
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _held.extend(sockets)
    return [int(one.getsockname()[1]) for one in sockets]
