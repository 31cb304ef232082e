"""Series of `/metrics` that are about this process and not about its traffic: who it is, what it takes of its host.

Named as Prometheus' own libraries name them, so that panels for any process find them. By OTLP, who it is goes with
everything as the resource.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sidecar.core.sources import ProcessNumbers, Sources

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
