"""Pods with several workers each, one Redis that each reaches by a way of its own, an upstream, and clients that
never stop asking. All are real processes but for upstream and clients, which are in the loop of who looks."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.fleet_trouble.service import Service, owner_of
from tests.support.redis_server import RedisServer, redis_server
from tests.support.relay import Relay, relay
from tests.support.upstream import scripted
from tests.support.workers import Pod, pod

MOST_PROBES = 1
ROUTE = """\
timeouts: {{request: 4m}}, circuit_breaker: {{
  scope: fleet, consecutive_failures: 3, minimum_calls: 100, warm_up: off, open_for: 300ms, max_open_for: 600ms,
  half_open: {{max_calls: {most_probes}, max_wait: {max_wait_seconds}s}}}}"""
WORKERS = 2
CLIENTS = 8
"""Of each pod."""
PAUSE_SECONDS = 0.05
"""Of a client, between an answer and its next request."""
DEATHS, MINUTE_SECONDS = 4, 60.0
"""Of one process in a minute; two more would end its pod."""
REFUSED = 20
"""By each pod while a probe is out: so many requests could have been one too."""
REFUSING = {"open", "half_open"}


@dataclass
class Member:
    """One pod with its way to the Redis and its clients."""

    pod: Pod
    way: Relay
    statuses: Counter[int] = field(default_factory=Counter)
    """Of answers."""
    cut: int = 0
    """Connections of clients that ended without an answer."""
    deaths: dict[str, list[float]] = field(default_factory=dict)
    """By process: when it was killed."""
    _answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self) -> None:
        """Ask again and again, on one connection as long as it lasts."""
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.pod.inbound)
            except ConnectionError:
                self.cut += 1
                continue
            try:
                while True:
                    self.statuses[await _ask(reader, writer)] += 1
                    self._answered.set()
                    await asyncio.sleep(PAUSE_SECONDS)
            except (ConnectionError, asyncio.IncompleteReadError):
                self.cut += 1
            finally:
                writer.close()

    def kill(self, name: str) -> bool:
        """A process of it, by its name. False: it has died too often of late."""
        now = time.monotonic()
        recent = [at for at in self.deaths.get(name, []) if now - at < MINUTE_SECONDS]
        if len(recent) >= DEATHS:
            return False
        self.deaths[name] = [*recent, now]
        self.signal(name, signal.SIGKILL)
        return True

    def signal(self, name: str, number: int) -> None:
        """To a process, if it has not just died."""
        try:
            os.kill(self.pod.pids()[name], number)
        except ProcessLookupError:
            return

    async def refuses(self, count: int) -> None:
        """Wait until it has refused so many more."""
        wanted = self.statuses[503] + count
        while self.statuses[503] < wanted:
            self._answered.clear()
            await self._answered.wait()

    async def is_whole(self, replicas: int) -> None:
        """Wait until all its processes are there, and each is linked to all others."""
        await self.pod.until("/status", lambda told: _is_whole(told, replicas))

    async def are(self, wanted: Callable[[set[str]], bool]) -> None:
        """Wait until the states of all its breakers are as wanted."""
        await self.pod.until("/breakers", lambda told: _count(told) == WORKERS and wanted(_states(told)))


@dataclass
class World:
    """All of it."""

    members: list[Member]
    server: RedisServer
    service: Service

    def workers(self) -> Iterator[tuple[Member, str, int]]:
        """Each with its pod, name and pid."""
        for member in self.members:
            for name, pid in member.pod.pids().items():
                if name != "control":
                    yield member, name, pid

    async def peace(self) -> None:
        """Wait until all are one again."""
        for member in self.members:
            await member.is_whole(len(self.members))

    async def all_refuse(self) -> None:
        """Have the upstream fail until every breaker is open or half open: then none closes, unless a probe is
        good."""
        self.service.is_failing = True
        for member in self.members:
            await member.are(lambda states: states <= REFUSING)

    async def all_are_closed(self) -> float:
        """Have it answer, and wait until every breaker is closed; how many seconds that took."""
        began = time.monotonic()
        self.service.release()
        for member in self.members:
            await member.are(lambda states: states == {"closed"})
        return time.monotonic() - began

    async def lost_links(self) -> int:
        """How often any process of now has lost its Redis so far: without it each acts for itself."""
        told = [await member.pod.until("/status", _is_complete) for member in self.members]
        return sum(sum(one["fleet"]["failures"].values()) for one in told)

    async def refusals(self) -> None:
        """Wait until each pod has refused some more."""
        for member in self.members:
            await member.refuses(REFUSED)

    async def kill_who_probes(self) -> float:
        """Kill the worker whose probe is out; how many seconds passed until another one was."""
        (port,) = self.service.held
        pids = {pid: (member, name) for member, name, pid in self.workers()}
        owner = owner_of(port, pids)
        assert owner is not None, "a probe that no worker has sent"
        member, name = pids[owner]
        if not member.kill(name):
            return 0.0
        began = time.monotonic()
        await self.service.until_held(0)
        await self.service.until_held(1)
        return time.monotonic() - began

    async def cuts_without_reason(self) -> int:
        """Connections of clients that were cut although no worker of their pod has died."""
        cut = 0
        for member in self.members:
            workers = (await member.pod.ask("/status"))["workers"]
            cut += 0 if any(worker["deaths"] for worker in workers) else member.cut
        return cut

    def strange_answers(self) -> Counter[int]:
        """Those that neither the upstream nor a breaker gives."""
        every = sum((member.statuses for member in self.members), Counter[int]())
        return Counter({status: count for status, count in every.items() if status not in (200, 500, 503)})


@asynccontextmanager
async def world(folder: Path, pods: int, max_wait_seconds: int) -> AsyncIterator[World]:
    """So many pods, all linked, and clients that ask. `max_wait_seconds`: of permits that nobody renews."""
    route = ROUTE.format(most_probes=MOST_PROBES, max_wait_seconds=max_wait_seconds)
    service = Service()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(redis_server(folder))
        app = await stack.enter_async_context(scripted(service.serve))
        members = []
        for number in range(pods):
            way = await stack.enter_async_context(relay(server.port))
            own = folder / f"pod{number}"
            own.mkdir()
            share = f'share: {{redis: {{url: "redis://127.0.0.1:{way.port}/0", fleet: shop}}}}'
            one = await stack.enter_async_context(
                pod(own, workers=WORKERS, app=app.port, route=route, top=share)
            )
            members.append(Member(one, way))
        asking = [asyncio.create_task(one.client()) for one in members for _ in range(CLIENTS)]
        made = World(members, server, service)
        try:
            await made.peace()
            yield made
        finally:
            service.release()
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)
    return int(head.split(b" ", 2)[1])


def _is_complete(told: Any) -> bool:
    """Every worker has answered."""
    return bool(told["fleet"]) and all(worker["is_there"] for worker in told["workers"])


def _is_whole(told: Any, replicas: int) -> bool:
    return _is_complete(told) and not told["fleet"]["is_alone"] and told["fleet"]["replicas"] == replicas


def _states(told: Any) -> set[str]:
    return {worker["state"] for worker in told["breakers"][0]["workers"]}


def _count(told: Any) -> int:
    return len(told["breakers"][0]["workers"])
