"""From traffic with outages to a candidate that a reload applies: the way of `sidecar tune`, on virtual time."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from sidecar.config.load import load_text
from sidecar.runtime.worker import Worker
from sidecar.tuning.pages import read_pages
from sidecar.tuning.present import present_of
from sidecar.tuning.report import candidate
from sidecar.tuning.tune import Tuned, tune
from tests.scenarios.operator import operator, serving
from tests.support.proxy import HEADER, port

BAD = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BREAKER = "  circuit_breaker:\n    mode: metrics_only\n    consecutive_failures: 3\n"
OUTAGES = [(30.0, 75.0), (140.0, 180.0), (245.0, 295.0)]
END = 360.0
RATE = 8.0


async def traffic(worker: Worker, until: float) -> None:
    """One request after another by one client, some a second."""
    loop, rng = asyncio.get_running_loop(), random.Random(5)
    reader, writer = await asyncio.open_connection("127.0.0.1", port(worker))
    began = loop.time()
    while loop.time() - began < until:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(rng.expovariate(RATE))
    writer.close()


async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, began: float) -> None:
    """A quarter of its answers are errors while it is ill."""
    loop, rng = asyncio.get_running_loop(), random.Random(7)
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            is_ill = any(start <= loop.time() - began < end for start, end in OUTAGES)
            writer.write(BAD if is_ill and rng.random() < 0.25 else GOOD)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def tuned(worker: Worker) -> Tuned:
    """As the command does, which asks the same paths."""
    who, answers = operator(worker), {}
    page: dict[str, Any] = {"next": 0}
    while page["next"] is not None:
        path = f"/outcomes/app?from={page['next']}"
        page = answers[path] = await who.get(path)
    answers["/config?route=app"] = await who.get("/config?route=app")
    present = present_of(answers.__getitem__, "app")
    calls, _ = read_pages(answers.__getitem__, "app")
    return tune("app", calls, present.policy, present.ejections)


async def test_traffic_leads_to_a_candidate_that_a_reload_applies(tmp_path: Path) -> None:
    file, loop = tmp_path / "sidecar.yaml", asyncio.get_running_loop()
    began = loop.time()
    server = await asyncio.start_server(lambda *link: app(*link, began), "127.0.0.1", 0)
    to = server.sockets[0].getsockname()[1]
    head = f'{HEADER}upstreams: {{app: {{endpoints: ["127.0.0.1:{to}"]}}}}\n'
    file.write_text(f"{head}routes:\n- name: app\n  upstream: app\n{BREAKER}")
    async with server, serving(load_text(file.read_text()).snapshot, path=str(file)) as worker:
        await traffic(worker, END)
        found = await tuned(worker)
        assert len(found.spells) == 3
        assert found.refused == 0
        text = candidate(found)
        assert "candidate: {consecutive_failures: " in text
        (only,) = [line for line in text.splitlines() if "candidate" in line]
        file.write_text(f"{head}routes:\n- name: app\n  upstream: app\n{BREAKER}{only}\n")
        assert (await operator(worker).post("/reload"))["is_success"]
        (breaker,) = (await operator(worker).get("/breakers/app"))["breakers"]
        assert breaker["candidate"]["policy"]["consecutive_failures"] == found.changes["consecutive_failures"]
        assert breaker["active"]["policy"]["consecutive_failures"] == 3
