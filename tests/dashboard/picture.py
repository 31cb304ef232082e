"""The picture of the README: python -m tests.dashboard.picture [SECONDS]. A shop's ordinary day, with two bad spells.

Needs Debian's chromium, fonts-inter for its letters, and pngquant to make it small.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from aiohttp import ClientError

from tests.process.shop import NAMES, Shop, shop
from tests.support.browser import opened

FILE = Path(__file__).parents[2] / "deploy" / "pictures" / "dashboard.png"
BREAKER = "consecutive_failures: 5, open_for: 9s, max_open_for: 25s, candidate: {consecutive_failures: 3}"
SIZE = {"width": 1480, "height": 860}


async def visitors(to: Shop, name: str, dice: random.Random) -> None:
    """Calls of one route for ever; how many a second is the route's own."""
    rate, seconds = dice.uniform(2, 14), dice.choice((0.002, 0.015, 0.04, 0.12))
    while True:
        to.seconds[name] = seconds * dice.lognormvariate(0, 0.6)
        with suppress(ClientError):
            await to.ask(name)
        await asyncio.sleep(dice.expovariate(rate))


async def weather(to: Shop, dice: random.Random) -> None:
    """What is wrong, and when: payments fails in spells, and an old service for good after a while."""
    await asyncio.sleep(22)
    to.moods["checkout-to-payments"] = 500
    await asyncio.sleep(16)
    del to.moods["checkout-to-payments"]
    to.moods["legacy-soap"] = 503
    await asyncio.sleep(20)
    to.moods["checkout-to-payments"] = 500
    await to.hand.post("/breakers/webhooks/open?for=15m")
    while True:
        to.moods["search"] = 500
        await asyncio.sleep(dice.uniform(0.05, 0.15))
        to.moods.pop("search")
        await asyncio.sleep(dice.uniform(1, 4))


async def main(seconds: float) -> None:
    dice = random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        async with shop(Path(folder), breaker=BREAKER) as to, to.sidecar(), opened(to.url) as (page, _):
            await page.set_viewport_size(SIZE)
            tasks = [asyncio.create_task(visitors(to, name, dice)) for name in NAMES for _ in range(2)]
            tasks.append(asyncio.create_task(weather(to, dice)))
            await asyncio.sleep(seconds)
            FILE.parent.mkdir(exist_ok=True)
            await page.screenshot(path=FILE)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 100.0))
    subprocess.run(["pngquant", "--force", "--speed", "1", "--output", FILE, "256", FILE], check=True)
