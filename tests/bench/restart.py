"""How long an app is out of reach when its sidecar is killed: python -m tests.bench.restart.

Processes in the order of a kubelet (`tests/deploy/kubelet.py`), with the files of deploy/. What else runs on the
machine only ever adds to it: the best of some tries counts.

Prints one figure with what it may be at most. Exit code 1 if it is over.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import aiohttp

from tests.bench.reload import Figure
from tests.deploy.kubelet import Pod
from tests.deploy.test_life import configuration, killed

TRIES = 10


async def measure(folder: Path) -> Figure:
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
        pod = Pod(configuration(folder, "base", payments="127.0.0.1:9"), ["serve"], session)
        try:
            await pod.start()
            await pod.ready()
            away = [await killed(pod, session) for _ in range(TRIES)]
        finally:
            await pod.kill()
    return Figure("an app whose sidecar was killed was out of reach for, s", min(away), 1.0)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        figure = asyncio.run(measure(Path(name)))
    print(figure)
    return 0 if figure.value <= figure.most else 1


if __name__ == "__main__":
    sys.exit(main())
