"""Series of `/metrics` that are about this process and not about its traffic: who it is, what it takes of its host.

Named as Prometheus' own libraries name them, so that panels for any process find them. By OTLP, who it is goes with
everything as the resource.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sidecar.core.sources import ProcessNumbers, Sources, WorkerNumbers

_PROCESS: Final = (
    ("process_cpu_seconds", "counter", "User and system CPU time spent, in seconds.", "cpu_seconds"),
    ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", "resident_bytes"),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", "virtual_bytes"),
    ("process_open_fds", "gauge", "Number of open file descriptors.", "open_files"),
    ("process_max_fds", "gauge", "Maximum number of open file descriptors.", "max_open_files"),
    (
        "process_start_time_seconds",
        "gauge",
        "Start time of the process, in seconds since 1970.",
        "started_at",
    ),
)


def own_series(sources: Sources, *, openmetrics: bool) -> Iterator[str]:
    """In the format of `prometheus.render`, to stand before it."""
    if sources.build:
        yield _info(
            "sidecar_build", "The version of the sidecar, and what it runs on.", sources.build, openmetrics
        )
    if sources.resource:
        yield _info(
            "target", "Who is scraped, as the resource of OpenTelemetry.", sources.resource, openmetrics
        )
    process = sources.process
    if process is not None:
        for name, kind, meaning, field in _PROCESS:
            yield _number(name, kind, meaning, process, field, openmetrics)
    if sources.workers:
        yield from _of_workers(sources.workers, openmetrics)


_WORKER: Final[tuple[tuple[str, str, str, Callable[[WorkerNumbers], float]], ...]] = (
    ("sidecar_worker_up", "gauge", "1 while the worker is there.", lambda one: int(one.is_there)),
    ("sidecar_worker_deaths", "counter", "How often it has died.", lambda one: one.deaths),
    (
        "sidecar_worker_requests",
        "counter",
        "Requests that its process has answered.",
        lambda one: one.requests,
    ),
    (
        "sidecar_worker_cpu_seconds",
        "counter",
        "User and system CPU time of its process, in seconds.",
        lambda one: 0.0 if one.process is None else one.process.cpu_seconds,
    ),
    (
        "sidecar_worker_resident_memory_bytes",
        "gauge",
        "Resident memory of its process in bytes; what is shared with others counts in each.",
        lambda one: 0 if one.process is None else one.process.resident_bytes,
    ),
)


def _of_workers(workers: Sequence[WorkerNumbers], openmetrics: bool) -> Iterator[str]:
    """The part of each worker in what is told as a sum. Those of a process begin again with each process."""
    for name, kind, meaning, read in _WORKER:
        sample = f"{name}_total" if kind == "counter" else name
        family = name if openmetrics else sample
        lines = [f"# HELP {family} {meaning}\n# TYPE {family} {kind}\n"]
        unit = name.rpartition("_")[2]
        if openmetrics and unit in ("seconds", "bytes"):
            lines.append(f"# UNIT {family} {unit}\n")
        lines += [f'{sample}{{worker="{one.number}"}} {read(one)}\n' for one in workers]
        yield "".join(lines)


def _info(name: str, meaning: str, attributes: tuple[tuple[str, str], ...], openmetrics: bool) -> str:
    labels = ",".join(f'{key.replace(".", "_")}="{_escaped(value)}"' for key, value in attributes)
    kind, family = ("info", name) if openmetrics else ("gauge", f"{name}_info")
    return f"# HELP {family} {meaning}\n# TYPE {family} {kind}\n{name}_info{{{labels}}} 1\n"


def _number(
    name: str, kind: str, meaning: str, process: ProcessNumbers, field: str, openmetrics: bool
) -> str:
    sample = f"{name}_total" if kind == "counter" else name
    family = name if openmetrics else sample
    value: float = getattr(process, field)
    unit = name.rpartition("_")[2]
    lines = f"# HELP {family} {meaning}\n# TYPE {family} {kind}\n"
    if openmetrics and unit in ("seconds", "bytes"):
        lines += f"# UNIT {family} {unit}\n"
    return f"{lines}{sample} {value}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
