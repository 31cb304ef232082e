"""The schedule of `sidecar demo --fleet`: an outage that one replica sees first, one probe in all, and a Redis that
dies. Each claim's numbers were measured while it played.
"""

from __future__ import annotations

import asyncio
import time

from sidecar.demo.fleet_stage import REPLICAS, FleetStage
from sidecar.demo.scenes import Scene, play_all

THRESHOLD = 5
"""`consecutive_failures`, built in."""
PROTECTED_SECONDS = 1.0
"""On a machine that has something else to do; 200 ms is usual."""
CALLS = 10


async def play(stage: FleetStage, pause_seconds: float) -> None:
    """All scenes, each followed by a pause for those who watch."""
    await play_all(SCENES, stage, stage.journal, lambda: asyncio.sleep(pause_seconds))


async def meeting(stage: FleetStage) -> None:
    """All know of each other."""
    do_know = await stage.until_fleet("replicas", len(REPLICAS))
    told = [fleet["replicas"] for fleet in await stage.fleets()]
    stage.journal.claim(f"each replica knows of so many, itself included: {told}", do_know)
    status = (await stage.call(0)).status
    stage.journal.claim(f"one call through replica one: {status}", status == 200)


async def outage(stage: FleetStage) -> None:
    """One replica alone has calls that fail."""
    await stage.payments.stop()
    stage.journal.note("payments is dead, and only replica one calls it")
    statuses = [(await stage.call(0)).status for _ in range(THRESHOLD)]
    opened = await stage.until_state("open")
    first = opened.get(REPLICAS[0], 0.0)
    others = {name: f"{(at - first) * 1000:.0f} ms" for name, at in opened.items() if name != REPLICAS[0]}
    stage.journal.claim(
        f"after {len(statuses)} failures at replica one ({statuses[0]}) all {len(opened)} are open; "
        f"the others after {others}",
        len(opened) == len(REPLICAS) and max(opened.values()) - first <= PROTECTED_SECONDS,
    )
    served = len(stage.payments.served)
    answers = [answer for _ in range(CALLS) for answer in await stage.call_all()]
    refused = sum(answer.status == 503 for answer in answers)
    stage.journal.claim(
        f"{refused} of {len(answers)} calls through all three are refused; "
        f"payments got {len(stage.payments.served) - served}",
        refused == len(answers),
    )


async def recovery(stage: FleetStage) -> None:
    """All three have calls, and payments gets one probe."""
    await stage.payments.start()
    stage.journal.note("payments is back, and nobody knows yet")
    served, rounds = len(stage.payments.served), 0
    until = time.monotonic() + 20.0
    good = 0
    while not good and time.monotonic() < until:
        good = sum(answer.status == 200 for answer in await stage.call_all())
        rounds += 1
        await asyncio.sleep(0.02)
    probes = len(stage.payments.served) - served
    stage.journal.claim(
        f"of {rounds * len(REPLICAS)} calls until the first good one payments got {probes}: the probe of all",
        good == probes == 1,
    )
    closed = await stage.until_state("closed")
    spread = (max(closed.values()) - min(closed.values())) * 1000 if closed else 0.0
    stage.journal.claim(
        f"{len(closed)} of {len(REPLICAS)} are closed, the last {spread:.0f} ms after the first",
        len(closed) == len(REPLICAS),
    )


async def without_redis(stage: FleetStage) -> None:
    """The Redis dies: nobody's call does."""
    stage.redis.kill()
    are_alone = await stage.until_fleet("is_alone", True)
    reasons = sorted({fleet["reason"] or "none" for fleet in await stage.fleets()})
    answers = [answer.status for _ in range(CALLS) for answer in await stage.call_all()]
    good = answers.count(200)
    stage.journal.claim(
        f"each is alone and says why ({', '.join(reasons)}); {good} of {len(answers)} calls are good",
        are_alone and good == len(answers),
    )
    await stage.redis.start()
    are_one = await stage.until_fleet("is_alone", False)
    stage.journal.claim("the Redis is back, and they are one again", are_one)


SCENES = (
    Scene("Three replicas meet", "They find each other by a Redis, under the name of their fleet.", meeting),
    Scene(
        "payments dies, and one replica alone sees it",
        "What it has seen opens the breakers of the others, which have not called payments lately.",
        outage,
    ),
    Scene("payments is back", "All three have calls, and one probe in all goes through.", recovery),
    Scene("The Redis dies", "Each replica goes on alone, and no request is harmed.", without_redis),
)
