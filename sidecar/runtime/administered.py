"""What admin API and probes may see and change of this process, as `Process` and `Vitals` of `admin/` ask for it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from sidecar.admin.process import Data, Standby
from sidecar.admin.tap import Taps
from sidecar.config.schema.units import parse_duration
from sidecar.config.tell import render
from sidecar.core.breaker import Breaker
from sidecar.core.finished import FinishedExchange
from sidecar.core.installed import version
from sidecar.core.listing import Listing
from sidecar.core.snapshot import Endpoint, Route, Snapshot
from sidecar.core.sources import Sources
from sidecar.core.ties import advice
from sidecar.core.transition import Transition
from sidecar.core.wall import to_the_second
from sidecar.runtime.actor import Parts
from sidecar.runtime.certificates import Rotation
from sidecar.runtime.datapath import DataPath
from sidecar.runtime.drain import Drain
from sidecar.runtime.endpoint_sources import EndpointSources
from sidecar.runtime.reload import Active, Outcome
from sidecar.runtime.sources import memory_numbers
from sidecar.runtime.telemetry_rooms import TelemetryRooms
from sidecar.telemetry.log_lines import Level, access_fields, iso
from sidecar.upstream.cluster import Cluster

MAX_PASSED = 50
"""Destinations that `/status` names."""


class Administered:
    """One process, as its operator meets it."""

    def __init__(
        self,
        datapath: DataPath,
        active: Active,
        drain: Drain,
        parts: Parts,
        rooms: TelemetryRooms,
        rotation: Rotation,
        lists: EndpointSources,
        *,
        reload: Callable[[], Awaitable[Outcome]],
        sources: Callable[[], Sources],
    ) -> None:
        self.numbers = rooms.numbers
        self.sources = sources
        self._datapath = datapath
        self._active = active
        self._drain = drain
        self._parts = parts
        self._rooms = rooms
        self._rotation = rotation
        self._lists = lists
        self._reload = reload
        self.taps = Taps(self._tapped)
        self._started_at = self.now()

    @property
    def is_started(self) -> bool:
        return self._datapath.is_serving

    @property
    def is_ready(self) -> bool:
        return self._datapath.is_ready

    @property
    def is_pressed(self) -> bool:
        return bool(self._datapath.service.shut.pressed)

    @property
    def turned_at(self) -> float:
        return self._datapath.service.sweep.pace.turned_at

    def hung(self, seconds: float, stack: str) -> None:
        message = f"the data loop has not turned for {seconds:.0f} s: /livez fails"
        self._rooms.room.log.event(Level.ERROR, "loop.hung", message, {"stack": stack}, time.monotonic())

    @property
    def is_draining(self) -> bool:
        return self._datapath.service.is_draining

    @property
    def snapshot(self) -> Snapshot:
        return self._active.snapshot

    @property
    def breakers(self) -> Mapping[tuple[str, str], Breaker]:
        return self._datapath.assembly.breakers

    @property
    def clusters(self) -> Mapping[str, Cluster]:
        return self._datapath.assembly.clusters

    def listing(self, entry: Endpoint) -> Listing | None:
        return self._lists.listing(entry)

    @property
    def standbys(self) -> Mapping[tuple[str, str], Standby]:
        found = self._datapath.assembly.standbys()
        return {(home.breaker.route, home.breaker.upstream): standby for home, standby in found}

    @property
    def log_level(self) -> str:
        return self._rooms.room.log.level.name.lower()

    def now(self) -> float:
        return self._datapath.service.clock()

    def wall_time(self) -> float:
        return time.time() + self.now() - time.monotonic()

    def vitals(self) -> Data:
        sockets, now = self._datapath.listeners.sockets, self.now()
        return {
            "service": self._rooms.room.settings.service_name,
            "version": version(),
            "pid": os.getpid(),
            "uptime_seconds": round(now - self._started_at, 3),
            "exchanges": len(self._datapath.service.exchanges),
            "listeners": {name: str(one.address) for name, one in sockets.items()},
            "memory": asdict(memory_numbers(self._datapath.service.memory)),
            "overload": {
                name: {
                    "is_on": one.overload.is_on,
                    "admission": one.overload.admission,
                    "waiting": one.gate.waiting if one.gate is not None else 0,
                    "refused": one.refused_requests,
                    "left": one.gone_clients,
                    "waits_for_room": one.waits_for_room,
                }
                for name, one in sockets.items()
            },
            "pass_through": self._passed(),
            "certificates": self._rotation.told(),
            "untied_calls": self._untied_calls(),
            "config": self._config_numbers(),
            "parts": [{**asdict(part), "state": part.state.value} for part in self._parts.views()],
        }

    def _passed(self) -> Data:
        """What no route names and is passed through: in all, and the destinations that were asked for last."""
        passing, now = self._datapath.assembly.passing, self.now()
        shown = passing.destinations()[:MAX_PASSED]
        return {
            **asdict(passing.numbers()),
            "last": [
                {
                    "destination": str(one.endpoint),
                    "listener": one.listener,
                    "count": one.count,
                    "seconds_ago": round(now - one.last_at, 3),
                    "state": one.breaker.state_at(now).value,
                }
                for one in shown
            ],
        }

    def _untied_calls(self) -> str | None:
        ties = self._datapath.service.callers.ties
        return advice(ties.untied) if ties.are_missing else None

    async def config(self) -> Data:
        active = self._active
        last, change = active.last, active.last_change
        snapshot = active.snapshot
        await asyncio.to_thread(render.prepare)
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
            "at": to_the_second(self.wall_time() - self.now() + report.at),
            "seconds": round(report.seconds, 6),
            "generation": report.generation,
            **report.effect(),
        }

    def seconds(self, duration: str) -> float:
        return parse_duration(duration)

    def transitioned(self, transition: Transition) -> None:
        self._datapath.service.transitioned(transition)

    def audit(self, message: str, fields: Mapping[str, Any]) -> None:
        self._rooms.room.log.audit("admin.change", message, fields, self.now())

    def set_log_level(self, name: str) -> None:
        self._rooms.room.log.set_level(Level[name.upper()])

    async def reload(self) -> Data:
        return await asyncio.to_thread(self.told, await self._reload())

    def drain(self) -> None:
        self._drain.announce()

    def quit(self) -> None:
        self._drain.begin()

    def _tapped(self, record: FinishedExchange) -> Data:
        """Its line of the access log, without what it has not, and without its query."""
        at_ns = int((self.wall_time() - self.now() + record.ended) * 1e9)
        fields = access_fields(record)
        fields.pop("query", None)
        return {"at": iso(at_ns), **{key: value for key, value in fields.items() if value is not None}}

    def _config_numbers(self) -> Data:
        numbers = self._active.numbers(self.now())
        return {
            "generation": numbers.generation,
            "age_seconds": round(numbers.age_seconds, 3),
            "reloads_succeeded": numbers.reloads_succeeded,
            "reloads_failed": numbers.reloads_failed,
            "is_last_reload_successful": numbers.is_last_reload_successful,
            "problems": list(self._active.problems),
        }
