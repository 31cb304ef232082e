"""What admin API and probes may see and change of this process, as `Process` and `Vitals` of `admin/` ask for it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from sidecar.admin.process import Data, Standby, Undecided
from sidecar.admin.recent import Recent
from sidecar.admin.tap import Taps
from sidecar.config.schema.units import parse_duration
from sidecar.config.tell import render
from sidecar.core import ties
from sidecar.core.breaker import Breaker
from sidecar.core.contract import BUILD
from sidecar.core.finished import FinishedExchange
from sidecar.core.installed import version
from sidecar.core.listing import Listing
from sidecar.core.numbers import Numbers
from sidecar.core.outcomes.store import OutcomeStore
from sidecar.core.override import Command
from sidecar.core.snapshot import Endpoint, Route, Snapshot
from sidecar.core.sources import Sources
from sidecar.core.transition import Transition
from sidecar.core.wall import to_the_second
from sidecar.runtime.actor import Parts
from sidecar.runtime.certificates import Rotation
from sidecar.runtime.datapath import DataPath
from sidecar.runtime.drain import Drain
from sidecar.runtime.endpoint_sources import EndpointSources
from sidecar.runtime.fleet.membership import Membership
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
        fleet: Membership,
        *,
        reload: Callable[[], Awaitable[Outcome]],
        sources: Callable[[], Sources],
    ) -> None:
        self.numbers = rooms.numbers
        self.recent = Recent(rooms.numbers, datapath.service.clock)
        self.gather: Callable[[], Awaitable[tuple[Numbers, Sources]]] = self._own
        """What a scrape is answered with; control of several processes puts all of them in its place."""
        self.also_override: Callable[[Command], Awaitable[None]] | None = None
        """Who else has to hear of an operator's order. Where somebody has, this process serves nothing, and what its
        own breakers do is no news."""
        self.also_set_level: Callable[[str], Awaitable[None]] | None = None
        self._sources = sources
        self._datapath = datapath
        self._active = active
        self._drain = drain
        self._parts = parts
        self._rooms = rooms
        self._rotation = rotation
        self._lists = lists
        self._fleet = fleet
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

    async def scraped(self) -> tuple[Numbers, Sources]:
        return await self.gather()

    async def _own(self) -> tuple[Numbers, Sources]:
        return self.numbers, await asyncio.to_thread(self._sources)

    @property
    def outcomes(self) -> OutcomeStore:
        return self._datapath.assembly.outcomes

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
            "build": BUILD,
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
                    "waits_for_room": one.queues.waits_for_room,
                    "turned_away": one.turned_away,
                }
                for name, one in sockets.items()
            },
            "pass_through": self._passed(),
            "fleet": self._fleet.told(),
            "certificates": self._rotation.told(),
            "untied_calls": self._untied_calls(),
            "telemetry_lost": [
                {"signal": signal, "reason": reason, "count": count}
                for (signal, reason), count in sorted(self._rooms.dropped().items())
                if count
            ],
            "pending_restart": list(self._active.pending_restart),
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
        return ties.told(self._datapath.service.callers.ties)

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

    async def override(self, command: Command) -> None:
        transitions = self.obey(command)
        if self.also_override is not None:
            await self.also_override(command)
            return
        for transition in transitions:
            self._datapath.service.transitioned(transition)

    def obey(self, command: Command) -> list[Transition]:
        """Have this process's breakers do what an operator says."""
        found = []
        for upstream in command.upstreams:
            breaker = self.breakers.get((command.route, upstream))
            if breaker is not None:
                transition = self._obeyed(breaker, command)
                found += [] if transition is None else [transition]
        return found

    def _obeyed(self, breaker: Breaker, command: Command) -> Transition | None:
        if command.is_for_fleet and self._fleet.told_of(breaker) is not None:
            return self._fleet.order(breaker, command.action, command.seconds, command.by)
        return breaker.override(command.action, self.now(), command.seconds, command.by)

    def commands(self) -> list[Command]:
        """The operators' orders that are on, as they would be said now."""
        now, found = self.now(), []
        for breaker in self.breakers.values():
            order = breaker.order_at(now)
            if order is not None:
                seconds = None if order.until is None else order.until - now
                found.append(Command(breaker.route, (breaker.upstream,), order.action, seconds, order.by))
        return found

    def fleet_of(self, breaker: Breaker) -> Data | None:
        return self._fleet.told_of(breaker)

    def audit(self, message: str, fields: Mapping[str, Any]) -> None:
        self._rooms.room.log.audit("admin.change", message, fields, self.now())

    async def set_log_level(self, name: str) -> None:
        self._rooms.set_level(Level[name.upper()])
        if self.also_set_level is not None:
            await self.also_set_level(name)

    async def reload(self) -> Data:
        outcome = await self._reload()
        if outcome.is_undecided:
            raise Undecided("; ".join(outcome.report.problems))
        return await asyncio.to_thread(self.told, outcome)

    def drain(self) -> None:
        self._drain.announce()

    def quit(self) -> None:
        self._drain.begin("POST /quitquitquit")

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
