"""What is seen of a running sidecar from outside, and through its bench's door: one sample, one line."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.machine import PAGE_BYTES, tree
from tests.bench.soak.looked_at import WITH_TYPES
from tests.support.process import http_get

COUNTERS = {
    "requests": "http_server_request_duration_seconds_count",
    "active": "http_server_active_requests",
    "upstream connections": "sidecar_upstream_connections",
    "pending": "sidecar_upstream_pending",
    "transitions": "sidecar_circuit_breaker_transitions_total",
    "reloads": "sidecar_config_reloads_total",
    "dropped": "sidecar_telemetry_dropped_total",
    "evicted": "sidecar_callers_evicted_total",
    "refused": "sidecar_listener_refused_total",
    "series": "",
}
"""What is read from `/metrics`: the sum of all samples that begin so. Empty: how many samples there are."""
LEVELS = (
    "MiB",
    "rest MiB",
    "children MiB",
    "fds",
    "threads",
    "tasks",
    "active",
    "upstream connections",
    "pending",
    "series",
)
"""Which must not grow, but for what outcomes take (`rest MiB` is without them): a ring for each route that fills up
to its limit. The others count what has happened."""


@dataclass(frozen=True)
class Sample:
    """At `at` seconds from the start of the load."""

    at: float
    values: dict[str, float]

    def line(self) -> str:
        minutes, seconds = divmod(int(self.at), 60)
        told = "  ".join(f"{name} {value:,.1f}" if name.endswith("MiB") else f"{name} {value:,.0f}"
                         for name, value in self.values.items())  # fmt: skip
        return f"{minutes:3}:{seconds:02}  {told}"


@dataclass
class Watch:
    """One sidecar process."""

    pid: int
    probes: int
    door: Path
    started: float = field(default_factory=time.monotonic)

    async def sample(self) -> Sample:
        at = time.monotonic() - self.started
        told = await self._ask(b"n")  # first: an answer has come before the task that has sent it is over
        _, text = await http_get(self.probes, "/metrics")
        counters = {name: _sum(text, start) for name, start in COUNTERS.items()}
        children = [_mib(pid) for pid in tree(self.pid)[1:]]
        resident, outcomes = _mib(self.pid), told["outcomes"] / 2**20
        values = {
            "MiB": resident,
            "outcomes MiB": outcomes,
            "rest MiB": resident - outcomes,
            "children MiB": sum(children),
            "fds": len(os.listdir(f"/proc/{self.pid}/fd")),
            "threads": len(os.listdir(f"/proc/{self.pid}/task")),
            "tasks": told["tasks"],
            **counters,
        }
        return Sample(at, values)

    async def held(self) -> dict[str, Any]:
        """Objects by type, and the tasks by name."""
        return await self._ask(WITH_TYPES)

    async def _ask(self, what: bytes) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(str(self.door))
        writer.write(what)
        answer = await reader.read()
        writer.close()
        found: dict[str, Any] = json.loads(answer)
        return found


def _mib(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 2**20
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _sum(text: str, start: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith(start) and not line.startswith("#")]
    return float(len(lines)) if not start else sum(float(line.rpartition(" ")[2]) for line in lines)
