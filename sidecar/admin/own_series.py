"""Series of `/metrics` that are about this process and not about its traffic: who it is, what it takes of its host.

Named as Prometheus' own libraries name them, so that panels for any process find them. By OTLP, who it is goes with
everything as the resource.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.sources import ProcessNumbers, Sources, WorkerNumbers

COUNTER, GAUGE, INFO = "counter", "gauge", "info"
"""Kinds, in the words of OpenMetrics."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class OwnFamily:
    """One metric, as any format writes it."""

    name: str
    """Without the suffix of a single sample."""
    kind: str
    """`COUNTER`, `GAUGE` or `INFO`."""
    meaning: str
    rows: Sequence[tuple[Labels, float]]

    @property
    def sample(self) -> str:
        """The name of a sample."""
        return self.name + {COUNTER: "_total", INFO: "_info"}.get(self.kind, "")

    @property
    def unit(self) -> str:
        """Empty if it has none."""
        unit = self.name.rpartition("_")[2]
        return unit if unit in ("seconds", "bytes") else ""


_PROCESS: Final[tuple[tuple[str, str, str, Callable[[ProcessNumbers], float]], ...]] = (
    (
        "process_cpu_seconds",
        COUNTER,
        "User and system CPU time spent, in seconds.",
        lambda one: one.cpu_seconds,
    ),
    (
        "process_resident_memory_bytes",
        GAUGE,
        "Resident memory size in bytes.",
        lambda one: one.resident_bytes,
    ),
    (
        "process_virtual_memory_bytes",
        GAUGE,
        "Virtual memory size in bytes.",
        lambda one: one.virtual_bytes,
    ),
    ("process_open_fds", GAUGE, "Number of open file descriptors.", lambda one: one.open_files),
    ("process_max_fds", GAUGE, "Maximum number of open file descriptors.", lambda one: one.max_open_files),
    (
        "process_start_time_seconds",
        GAUGE,
        "Start time of the process, in seconds since 1970.",
        lambda one: one.started_at,
    ),
)

_WORKER: Final[tuple[tuple[str, str, str, Callable[[WorkerNumbers], float]], ...]] = (
    ("sidecar_worker_up", GAUGE, "1 while the worker is there.", lambda one: int(one.is_there)),
    ("sidecar_worker_deaths", COUNTER, "How often it has died.", lambda one: one.deaths),
    (
        "sidecar_worker_requests",
        COUNTER,
        "Requests that its process has answered.",
        lambda one: one.requests,
    ),
    (
        "sidecar_worker_cpu_seconds",
        COUNTER,
        "User and system CPU time of its process, in seconds.",
        lambda one: 0.0 if one.process is None else one.process.cpu_seconds,
    ),
    (
        "sidecar_worker_resident_memory_bytes",
        GAUGE,
        "Resident memory of its process in bytes; what is shared with others counts in each.",
        lambda one: 0 if one.process is None else one.process.resident_bytes,
    ),
)
"""The part of each worker in what is told as a sum. Those of a process begin again with each process."""


def own_families(sources: Sources) -> Iterator[OwnFamily]:
    if sources.build:
        meaning = "The version of the sidecar, and what it runs on."
        yield OwnFamily("sidecar_build", INFO, meaning, [(sources.build, 1)])
    if sources.resource:
        meaning = "Who is scraped, as the resource of OpenTelemetry."
        yield OwnFamily("target", INFO, meaning, [(_as_labels(sources.resource), 1)])
    process = sources.process
    if process is not None:
        for name, kind, meaning, read in _PROCESS:
            yield OwnFamily(name, kind, meaning, [((), read(process))])
    if sources.workers:
        for name, kind, meaning, read_worker in _WORKER:
            rows = [((("worker", str(one.number)),), read_worker(one)) for one in sources.workers]
            yield OwnFamily(name, kind, meaning, rows)


def _as_labels(attributes: Labels) -> Labels:
    """Attributes that whoever deploys has named, as OpenTelemetry's "Prometheus and OpenMetrics Compatibility" says:
    of names that become the same, one label has all values, joined in the order of these names."""
    found: dict[str, list[tuple[str, str]]] = {}
    for key, value in attributes:
        found.setdefault(_label_name(key), []).append((key, str(value)))
    return tuple((name, ";".join(value for _, value in sorted(same))) for name, same in found.items())


def _label_name(key: str) -> str:
    """A scraper takes nothing of a scrape with a name that has another form, or is its own."""
    name = "".join(one if one.isascii() and one.isalnum() else "_" for one in key)
    return f"key_{name}" if name[0].isdigit() or name.startswith("__") else name
