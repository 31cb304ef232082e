"""What several processes show of themselves, as one: sums, and under `workers` the part of each.

Pure: data in, data out. Of states that differ, the one that lets least through is shown, with its reasons, since some
requests meet it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from sidecar.admin import views
from sidecar.admin.process import Data
from sidecar.admin.recent import Recent
from sidecar.core.numbers import RouteNumbers
from sidecar.core.source_totals import WORST_FIRST

Parts = Mapping[int, Data]
"""By the number of the worker."""
Rows = Mapping[int, Sequence[Data]]

_WORST: Final = [state.value for state in WORST_FIRST]
_ROUTE_SUMS: Final = (
    "started",
    "active",
    "finished",
    "errors",
    "gone",
    "by_class",
    "by_error",
    "duration_counts",
    "duration_sum_seconds",
    "budgets",
    "cancellations",
    "deadline_exceeded",
    "deadline_rejected",
    "retries",
)
_ROUTE_PARTS: Final = ("started", "active", "errors")
_BREAKER_SUMS: Final = ("total", "failed", "rejected", "probes_in_flight")
_BREAKER_PARTS: Final = ("state", "why", "total", "failed", "rejected", "failure_count", "is_overridden")
_UPSTREAM_SUMS: Final = ("in_flight", "pending", "connections", "refused_by_limits")
_ENDPOINT_SUMS: Final = ("in_flight", "connections", "idle", "own_pod")
_STATUS_SUMS: Final = ("exchanges", "memory", "pass_through", "outcomes")
_FLEET_SUMS: Final = (
    "writes",
    "reads",
    "sent",
    "received",
    "refused",
    "unheard",
    "dropped",
    "failures",
)
_UNUSABLE_FIRST: Final = ("ejected", "unhealthy", "spared", "usable")


def total(values: Sequence[Any]) -> Any:
    """Numbers are added, also those in objects and in lists of numbers; of booleans one that is true is enough; of
    anything else the first counts."""
    known = [one for one in values if one is not None]
    first = known[0] if known else None
    if isinstance(first, bool):
        return any(known)
    if isinstance(first, int | float):
        return sum(known) if isinstance(first, int) else round(sum(known), 6)
    if isinstance(first, Mapping):
        keys = dict.fromkeys(key for one in known for key in one)
        return {key: total([one.get(key) for one in known]) for key in keys}
    if isinstance(first, list | tuple) and all(isinstance(one, int | float) for one in first):
        return [total(column) for column in zip(*known, strict=True)]
    return first


def routes(parts: Rows, bounds: Sequence[float]) -> list[Data]:
    """Rows of `/routes`, whose last minute is that of one worker; `bounds`: of how long requests took."""
    return _by_key(parts, lambda row: row["name"], partial(_route, bounds=bounds))


def with_minutes(rows: Sequence[Data], numbers: Sequence[RouteNumbers], recent: Recent) -> Iterator[Data]:
    """Rows of `/routes` with the last minute of all together. For the loop, which owns `recent`: each in its turn."""
    by_name = {one.name: one for one in numbers}
    for row in rows:
        yield {**row, "minute": views.minute(row["name"], by_name.get(row["name"]), recent)}


def breakers(parts: Rows) -> list[Data]:
    """Rows of `/breakers` or of `/breakers/{route}`."""
    return _by_key(parts, lambda row: (row["route"], row["upstream"]), _breaker)


def upstreams(parts: Rows) -> list[Data]:
    """Rows of `/upstreams`."""
    return _by_key(parts, lambda row: row["name"], _upstream)


def status(own: Data, parts: Parts) -> Data:
    """Control's `/status` with what workers say of traffic."""
    found = list(parts.values())
    whole = {**own, **_sums(_STATUS_SUMS, found)} if found else dict(own)
    if found:
        whole["overload"] = _overload([one["overload"] for one in found])
        whole["breakers"] = _breakers_in_all([one["breakers"] for one in found])
        whole["fleet"] = _fleet([one["fleet"] for one in found if one["fleet"] is not None])
        whole["parts"] = [*own["parts"], *_parts(parts)]
        whole["untied_calls"] = next((one["untied_calls"] for one in found if one["untied_calls"]), None)
    return whole


def _overload(rows: Sequence[Data]) -> Data:
    """By listener: sums, but for the share that is taken up, of which the smallest is shown."""
    return {
        name: {**whole, "admission": min(row[name]["admission"] for row in rows if name in row)}
        for name, whole in total(rows).items()
    }


def _by_key(
    parts: Rows, key: Callable[[Data], object], merge: Callable[[Mapping[int, Data]], Data]
) -> list[Data]:
    found: dict[object, dict[int, Data]] = {}
    for number, rows in parts.items():
        for row in rows:
            found.setdefault(key(row), {})[number] = row
    return [merge(one) for one in found.values()]


def _sums(keys: Collection[str], rows: Sequence[Data]) -> Data:
    return {key: total([row[key] for row in rows]) for key in keys if key in rows[0]}


def _each(rows: Mapping[int, Data], keys: Collection[str]) -> list[Data]:
    return [{"worker": number, **{key: row.get(key) for key in keys}} for number, row in rows.items()]


def _route(rows: Mapping[int, Data], bounds: Sequence[float]) -> Data:
    every = list(rows.values())
    whole = {**every[0], **_sums(_ROUTE_SUMS, every)}
    whole["error_rate"] = whole["errors"] / whole["finished"] if whole["finished"] else None
    counts = whole["duration_counts"]
    whole["duration_seconds"] = {
        name: views.quantile(counts, bounds, share) for name, share in views.QUANTILES.items()
    }
    whole["breakers"] = [
        {
            "upstream": one["upstream"],
            "state": min((row["breakers"][at]["state"] for row in every), key=_WORST.index),
        }
        for at, one in enumerate(every[0]["breakers"])
        if all(len(row["breakers"]) > at for row in every)
    ]
    whole["workers"] = _each(rows, _ROUTE_PARTS)
    return whole


def _breaker(rows: Mapping[int, Data]) -> Data:
    every = list(rows.values())
    whole = {**min(every, key=lambda row: _WORST.index(row["state"])), **_sums(_BREAKER_SUMS, every)}
    judged = whole["total"] - whole["rejected"]
    whole["success_rate"] = (judged - whole["failed"]) / judged if judged > 0 else None
    if "active" in whole:
        counters = total([row["active"]["counters"] for row in every])
        counters["success_rate"] = whole["success_rate"]
        whole["active"] = {**whole["active"], "counters": counters}
        latest = [one | {"worker": number} for number, row in rows.items() for one in row["history"]]
        whole["history"] = sorted(latest, key=lambda one: str(one["at"]), reverse=True)
    whole["workers"] = _each(rows, _BREAKER_PARTS)
    return whole


def _upstream(rows: Mapping[int, Data]) -> Data:
    every = list(rows.values())
    whole = {**every[0], **_sums(_UPSTREAM_SUMS, every)}
    whole["limits"] = total([row["limits"] for row in every])
    adaptive = [row["adaptive"] for row in every if row["adaptive"] is not None]
    if adaptive:
        bases = [one["base_seconds"] for one in adaptive if one["base_seconds"] is not None]
        whole["adaptive"] = {
            **total(adaptive),
            "base_seconds": max(bases, default=None),
            "changed": max((one["changed"] for one in adaptive), key=lambda one: str(one["at"])),
        }
    endpoints: dict[str, list[Data]] = {}
    for row in every:
        for one in row["endpoints"]:
            endpoints.setdefault(one["address"], []).append(one)
    whole["endpoints"] = [
        {**min(seen, key=lambda one: _UNUSABLE_FIRST.index(one["state"])), **_sums(_ENDPOINT_SUMS, seen)}
        for seen in endpoints.values()
    ]
    whole["workers"] = _each(rows, _UPSTREAM_SUMS)
    return whole


def _fleet(parts: Sequence[Data]) -> Data | None:
    """A worker that is alone, if any is, with the counts of all."""
    if not parts:
        return None
    shown = next((one for one in parts if one["is_alone"]), parts[0])
    return {**shown, **_sums(_FLEET_SUMS, parts)}


def _breakers_in_all(parts: Sequence[Data]) -> Data:
    """Each breaker counts once, by the worst that is known: of those that are shut in some worker, it is shut."""
    shut = {(one["route"], one["upstream"]): one for part in parts for one in part["open"]}
    worst = max(parts, key=lambda part: part["open_count"])
    return {
        **worst,
        "open": list(shut.values())[: views.MAX_SHUT],
        "open_count": max(worst["open_count"], len(shut)),
        "probe_due_count": max(part["probe_due_count"] for part in parts),
        "overridden_count": max(part["overridden_count"] for part in parts),
    }


def _parts(parts: Parts) -> list[Data]:
    """Those of workers that are not well; the others are all alike."""
    return [
        {**one, "name": f"worker {number}: {one['name']}"}
        for number, status in parts.items()
        for one in status["parts"]
        if one["state"] not in ("running", "new") or one["restarts"]
    ]
