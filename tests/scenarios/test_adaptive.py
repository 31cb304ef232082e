"""`limits.adaptive` before an app whose answers take longer the more of them it has to give at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import fmean

from sidecar.config.load import load_text
from sidecar.core.transition import State
from tests.scenarios.operator import operator
from tests.scenarios.stage import GET, OK, Stage, app_routes, stage
from tests.support.proxy import HEADER
from tests.support.raw import RawPeer, raw_client

WORKERS = 4
SERVICE_SECONDS = 0.02
CAPACITY = WORKERS / SERVICE_SECONDS
BUSY_CLIENTS = 20
CALM_SECONDS = 6.0
"""In which it learns what is usual."""
WAIT_SECONDS = 0.25
"""Of a client that was refused."""


class App:
    """Works on a few requests at once; the others wait."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(WORKERS)

    async def script(self, peer: RawPeer) -> None:
        while await peer.request() is not None:
            async with self.places:
                await asyncio.sleep(SERVICE_SECONDS)  # virtual
            await peer.send(OK)


@dataclass
class Load:
    """What clients saw that ask one request after the other."""

    seconds: list[float] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def adaptive(mode: str) -> AsyncIterator[Stage]:
    async with stage(App().script, upstream=f"limits: {{adaptive: {mode}}}") as to:
        yield to


async def load(to: Stage, clients: int, seconds: float) -> Load:
    loop, seen = asyncio.get_running_loop(), Load()
    end = loop.time() + seconds

    async def client() -> None:
        async with raw_client(to.port) as one:
            while loop.time() < end:
                begun, one.received = loop.time(), b""
                await one.send(GET)
                (answer,) = await one.responses([b"GET"])
                if answer.status == 200:
                    seen.seconds.append(loop.time() - begun)
                else:
                    seen.refused.append(answer.value(b"proxy-status") or b"")
                    await asyncio.sleep(WAIT_SECONDS)  # virtual

    await asyncio.gather(*(client() for _ in range(clients)))
    return seen


async def test_a_busy_app_answers_in_its_usual_time_and_the_rest_is_refused() -> None:
    async with adaptive("on") as to:
        calm = await load(to, 2, CALM_SECONDS)
        assert calm.refused == []
        await load(to, BUSY_CLIENTS, 4.0)  # it finds the limit
        busy = await load(to, BUSY_CLIENTS, 3.0)
        assert fmean(busy.seconds) < 2 * fmean(calm.seconds)
        assert len(busy.seconds) > 0.9 * CAPACITY * 3.0
        assert b"error=connection_limit_reached" in busy.refused[0]
        assert b"overloaded: app: limits.adaptive allows " in busy.refused[0]
        limit = to.cluster.adaptive
        assert limit is not None
        assert limit.refused == to.metric(
            'sidecar_adaptive_requests_total{sidecar_upstream="app",sidecar_adaptive_outcome="refused"}'
        )
        assert to.metric("sidecar_adaptive_limit{") == limit.limit < 4 * WORKERS
        assert to.metric("sidecar_adaptive_base_seconds{") == limit.base_seconds
        (told,) = (await operator(to.worker).get("/upstreams"))["upstreams"]
        assert told["adaptive"] == {
            "mode": "on",
            "limit": limit.limit,
            "in_flight": 0,
            "floor": limit.floor,
            "base_seconds": limit.base_seconds,
            "refused": limit.refused,
            "would_refuse": 0,
            "changed": {"at": told["adaptive"]["changed"]["at"], "reason": limit.changed.reason.value},
        }
        assert (
            to.metric(
                'sidecar_adaptive_changes_total{sidecar_upstream="app",sidecar_adaptive_reason="in_line"}'
            )
            >= 1
        )
        tally = to.breaker.tally
        assert (to.breaker.state, tally.failed, tally.rejected) == (State.CLOSED, 0, 0)
        assert to.cluster.in_flight == 0


async def test_observe_refuses_nothing_and_tells_what_it_would_have() -> None:
    async with adaptive("observe") as to:
        await load(to, 2, CALM_SECONDS)
        busy = await load(to, BUSY_CLIENTS, 5.0)
        assert busy.refused == []
        limit = to.cluster.adaptive
        assert limit is not None
        assert limit.would_refuse > 100
        assert limit.limit < 4 * WORKERS
        assert to.metric("sidecar_adaptive_requests_total{") == limit.would_refuse


async def test_a_reload_keeps_what_was_learned_and_off_ends_it() -> None:
    async with adaptive("observe") as to:
        await load(to, 2, CALM_SECONDS)
        learned = to.cluster.adaptive
        assert learned is not None
        assert learned.base_seconds is not None
        await again(to, "limits: {adaptive: on, max_requests: 50}")
        assert to.cluster.adaptive is learned
        assert (learned.is_observing, learned.most, learned.limit) == (False, 50, 50)
        await again(to, "limits: {max_requests: 50}")
        assert to.cluster.adaptive is None
        assert to.cluster.in_flight_limit.free_below == 50
        assert to.metric("sidecar_adaptive_") == 0
        assert (await to.ask()).status == 200


async def again(to: Stage, upstream: str) -> None:
    await to.worker.control.active.install(
        load_text(HEADER + app_routes(to.app.port, upstream=upstream)).snapshot
    )
