"""What the admin server may see and change of this process: the worker, in the shape of `admin.process.Process`."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sidecar.admin.process import Data
from sidecar.config.schema.units import parse_duration
from sidecar.config.tell import render
from sidecar.core.breaker import Breaker
from sidecar.core.snapshot import Route, Snapshot
from sidecar.core.sources import Sources
from sidecar.core.transition import Transition
from sidecar.runtime.reload import Outcome
from sidecar.telemetry.log_lines import Level

if TYPE_CHECKING:
    from sidecar.runtime.worker import Worker
    from sidecar.upstream.cluster import Cluster


class Administered:
    """One worker, as its operator meets it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.numbers = worker.numbers
        self._started_at = worker.service.clock()

    @property
    def is_started(self) -> bool:
        return self._worker.is_started

    @property
    def is_ready(self) -> bool:
        return self._worker.is_ready

    @property
    def is_draining(self) -> bool:
        return self._worker.service.is_draining

    @property
    def snapshot(self) -> Snapshot:
        return self._worker.snapshot

    @property
    def breakers(self) -> Mapping[tuple[str, str], Breaker]:
        return self._worker.assembly.breakers

    @property
    def clusters(self) -> Mapping[str, Cluster]:
        return self._worker.assembly.clusters

    @property
    def log_level(self) -> str:
        return self._worker.telemetry.log.level.name.lower()

    def now(self) -> float:
        return self._worker.service.clock()

    def wall_time(self) -> float:
        return time.time() + self.now() - time.monotonic()

    def sources(self) -> Sources:
        return self._worker.sources()

    def vitals(self) -> Data:
        worker, now = self._worker, self.now()
        return {
            "service": worker.telemetry.settings.service_name,
            "version": importlib.metadata.version("sidecar-proxy"),
            "pid": os.getpid(),
            "uptime_seconds": round(now - self._started_at, 3),
            "exchanges": len(worker.service.exchanges),
            "listeners": {name: str(one.address) for name, one in worker.listeners.items()},
            "config": self._config_numbers(),
            "parts": [{**asdict(part), "state": part.state.value} for part in worker.parts.views()],
        }

    async def config(self) -> Data:
        active = self._worker.active
        last, change = active.last, active.last_change
        snapshot = active.snapshot
        return {
            **self._config_numbers(),
            "files": list(snapshot.files),
            "pending_restart": list(active.pending_restart),
            "last_reload": None if last is None else await asyncio.to_thread(self.told, last),
            "last_change": None if change is None else await asyncio.to_thread(self.told, change),
            "active": {
                "process": render.process(snapshot),
                "listeners": {name: render.listener(one) for name, one in snapshot.listeners.items()},
                "upstreams": {name: render.upstream(one) for name, one in snapshot.upstreams.items()},
            },
        }

    def written(self, route: Route) -> Mapping[str, str]:
        return render.route(route)

    def told(self, outcome: Outcome) -> Data:
        """A reload with all that it changed: pure, since it takes a while where a thousand routes have changed."""
        diff: Data = json.loads(json.dumps(asdict(outcome.diff), default=lambda kind: kind.value))
        return {**self.summary(outcome), "pending_restart": list(outcome.pending_restart), "diff": diff}

    def summary(self, outcome: Outcome) -> Data:
        """A reload in numbers, for `/events`."""
        report = outcome.report
        return {
            "is_success": report.is_success,
            "trigger": outcome.trigger,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.wall_time() - self.now() + report.at)),
            "seconds": round(report.seconds, 6),
            "generation": report.generation,
            **report.effect(),
        }

    def seconds(self, duration: str) -> float:
        return parse_duration(duration)

    def transitioned(self, transition: Transition) -> None:
        self._worker.service.observe.transitioned(transition)

    def audit(self, message: str, fields: Mapping[str, Any]) -> None:
        self._worker.telemetry.log.audit("admin.change", message, fields, self.now())

    def set_log_level(self, name: str) -> None:
        self._worker.telemetry.log.set_level(Level[name.upper()])

    async def reload(self) -> Data:
        return await asyncio.to_thread(self.told, await self._worker.reload())

    def drain(self) -> None:
        self._worker.drain.announce()

    def quit(self) -> None:
        self._worker.drain.begin()

    def _config_numbers(self) -> Data:
        numbers = self._worker.active.numbers(self.now())
        return {
            "generation": numbers.generation,
            "age_seconds": round(numbers.age_seconds, 3),
            "reloads_succeeded": numbers.reloads_succeeded,
            "reloads_failed": numbers.reloads_failed,
            "is_last_reload_successful": numbers.is_last_reload_successful,
            "problems": list(self._worker.active.problems),
        }
