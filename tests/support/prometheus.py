"""A real Prometheus of a test's (Debian's `prometheus`), and what Grafana would ask it by the dashboard."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.ports import free_ports

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
WAIT_SECONDS = 100.0
"""Against hanging."""
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian's package `prometheus`)"
)


@dataclass
class Prometheus:
    """One that scrapes, and answers by its API."""

    port: int
    log: Path
    session: aiohttp.ClientSession

    async def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its API.

        Raises:
            AssertionError: it says that the question is wrong.
        """
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        async with self.session.get(url, params=parameters) as answer:
            told = await answer.json()
        assert told["status"] == "success", (parameters, told)
        return told["data"]

    async def rows(self, query: str) -> list[tuple[dict[str, str], Any]]:
        """The rows of an instant query: labels, and the value as text, or the native histogram."""
        found = (await self.get("query", query=query))["result"]
        return [(row["metric"], row.get("histogram", row.get("value"))[1]) for row in found]

    async def until(
        self, query: str, is_so: Callable[[list[tuple[dict[str, str], Any]]], bool]
    ) -> list[tuple[dict[str, str], Any]]:
        """Ask until the rows are so, and return them."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_so(rows := await self.rows(query)):
            assert time.monotonic() < deadline, f"{query}: {rows}\n{self.log.read_text()[-2000:]}"
            await asyncio.sleep(0.1)
        return rows


@asynccontextmanager
async def prometheus(
    folder: Path, targets: Sequence[int], *options: str, rules: Path | None = None
) -> AsyncIterator[Prometheus]:
    """Scrapes these ports of loopback each 250 ms, and works out the rules as often."""
    (port,) = free_ports(1)
    names = json.dumps([f"127.0.0.1:{target}" for target in targets])
    (folder / "prometheus.yaml").write_text(
        "global: {scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}\n"
        f"rule_files: {json.dumps([str(rules)] if rules else [])}\n"
        f"scrape_configs: [{{job_name: sidecar, static_configs: [{{targets: {names}}}]}}]\n"
    )
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={folder}/prometheus.yaml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            *options,
            stdout=output,
            stderr=output,
        )
    try:
        async with aiohttp.ClientSession() as session:
            one = Prometheus(port, log, session)
            await _answers(one, process)
            yield one
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _answers(one: Prometheus, process: asyncio.subprocess.Process) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            await one.get("query", query="1")
        except (aiohttp.ClientError, AssertionError):
            assert process.returncode is None, one.log.read_text()
            assert time.monotonic() < deadline, one.log.read_text()
            await asyncio.sleep(0.05)
        else:
            return


def dashboard() -> dict[str, Any]:
    """The one for Grafana."""
    told: dict[str, Any] = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    return told


def panels(row: str | None = None) -> Iterator[tuple[str, str]]:
    """Title and expression of each panel of a row, or of all, as Grafana asks it for all routes."""
    now = None
    for panel in dashboard()["panels"]:
        now = panel["title"] if panel["type"] == "row" else now
        if row in (None, now):
            for target in panel.get("targets", ()):
                yield panel["title"], asked(target["expr"])


def asked(expression: str) -> str:
    """With Grafana's variables filled in."""
    everything = next(one for one in dashboard()["templating"]["list"] if one["name"] == "route")["allValue"]
    return expression.replace("$route", everything).replace("$__rate_interval", "1m")
