"""A busy sidecar's configuration is changed in every way, and nobody who calls it can tell."""

import asyncio
import itertools
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.operator import Operator
from tests.support.edits import PLAIN_WAYS, config_map, swap
from tests.support.hanging import family
from tests.support.ports import free_ports
from tests.support.process import Running, admin, http_get, sidecar
from tests.support.traffic import traffic
from tests.support.upstream import answering, scripted

pytestmark = pytest.mark.process

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD = "routes: [}"
BASE = """\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:0"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
defaults: {{circuit_breaker: {{open_for: 50s}}}}
upstreams:
  app: {{endpoints: ["127.0.0.1:{app}"]}}
  dead: {{endpoints: ["127.0.0.1:{dead}"]}}
"""
ROUTES = """\
routes:
- {name: app, match: {path: {prefix: /app}}, upstream: app}
- {name: dead, match: {path: {prefix: /dead}}, upstream: dead}
"""


def variant(base: str, number: int) -> str:
    """The configuration with another upstream and another route, whose answer is `number`."""
    upstream = f'  extra{number}: {{endpoints: ["127.0.0.1:1"]}}\n'
    route = f"- {{name: extra{number}, match: {{path: {{prefix: /extra}}}}, upstream: extra{number},"
    return f"{base}{upstream}{ROUTES}{route} fallback: {{status: 200, body: '{number}'}}}}\n"


async def trip(running: Running, inbound: int) -> str:
    """Open the breaker of the route `dead`; all that the metrics say of it."""
    for _ in range(6):
        status, _body = await http_get(inbound, "/dead")
        assert status in (502, 503)
    return await breaker_lines(running)


async def breaker_lines(running: Running) -> str:
    _, text = await running.get("/metrics")
    wanted = ("sidecar_circuit_breaker_state", "sidecar_circuit_breaker_transitions")
    lines = [line for line in text.splitlines() if line.startswith(wanted) and 'sidecar_route="dead"' in line]
    assert lines
    return "\n".join(line.partition(" # ")[0] for line in lines)


async def until_served(inbound: int, number: int) -> None:
    """Wait until the variant is live."""
    while (await http_get(inbound, "/extra"))[1] != str(number):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def until_refused(running: Running, failures: int) -> None:
    while await running.metric('sidecar_config_reloads_total{sidecar_config_result="failure"}') < failures:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("is_config_map", [False, True], ids=["plain file", "ConfigMap"])
async def test_traffic_never_notices_reloads(tmp_path: Path, *, is_config_map: bool) -> None:
    inbound, probes, dead = free_ports(3)
    async with scripted(answering(OK)) as app:
        base = BASE.format(inbound=inbound, probes=probes, app=app.port, dead=dead)
        file = tmp_path / "sidecar.yaml"
        ways: tuple[Callable[[Path, str], None], ...] = tuple(PLAIN_WAYS)
        if is_config_map:
            file, ways = config_map(tmp_path / "map", base + ROUTES), (swap,)
        else:
            file.write_text(base + ROUTES)
        async with (
            sidecar(file, probes, tmp_path / "log") as running,
            traffic(inbound, ["/app"], connections=8, per_second=200) as record,
        ):
            before = await trip(running, inbound)
            for number in range(1, 11):
                if number % 10 == 5:
                    ways[number % len(ways)](file, BAD)
                    await until_refused(running, 1)
                    assert (await running.get("/readyz"))[0] == 200
                    await until_served(inbound, number - 1)
                else:
                    ways[number % len(ways)](file, variant(base, number))
                    await until_served(inbound, number)
            assert await breaker_lines(running) == before
            assert await running.metric('sidecar_config_reloads_total{sidecar_config_result="success"}') == 9
        assert record.failures == []
        assert record.requests > 100
        log = (tmp_path / "log").read_text()
        assert f"{file}:1:" in log, "the mistake is told with its place"
        assert "route extra2 added" in log


def libraries(running: Running) -> dict[str, set[str]]:
    """Of each process but the loading one, which libraries are mapped of those that read and check files."""
    found = {}
    for pid in family(running.process.pid):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        if "sidecar.runtime.loading" not in words:
            maps = Path(f"/proc/{pid}/maps").read_text()
            found[f"{pid} {words}"] = {name for name in ("/pydantic_core/", "/yaml/") if name in maps}
    return found


async def test_a_reload_that_lacks_files_says_so_and_is_made_when_there_are_some(tmp_path: Path) -> None:
    """By whoever asks, and by the change of the file that could not be looked into."""
    inbound, probes, api, dead = free_ports(4)
    base = BASE.format(inbound=inbound, probes=probes, app=dead, dead=dead).replace(
        "127.0.0.1:0", f"127.0.0.1:{api}"
    )
    file = tmp_path / "sidecar.yaml"
    file.write_text(base + ROUTES)
    hand = Operator(api)
    async with sidecar(file, probes, tmp_path / "log") as running:
        pid = running.process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit_with_free(pid, 2), hard))
        for _ in range(3):
            told = await hand.post("/reload")
            assert hand.status == 503
            assert told["detail"].startswith("Too many open files: nothing is known of the configuration")
        file.write_text(variant(base, 1))
        await running.logged("Too many open files", times=3)
        assert limit_with_free(pid, 2) <= resource.prlimit(pid, resource.RLIMIT_NOFILE)[0], "none is kept"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        while (await http_get(inbound, "/extra"))[1] != "1":  # noqa: ASYNC110  (no event comes of it)
            await asyncio.sleep(0.1)
        assert (await hand.post("/reload"))["is_success"]


def limit_with_free(pid: int, count: int) -> int:
    """Of open files, that leaves a process so many beside those that it has."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return next(limit for limit in itertools.count() if len(set(range(limit)) - taken) == count)


@pytest.mark.parametrize("workers", [1, 2])
async def test_reloads_and_what_is_told_of_them_bring_no_library_for_good(
    tmp_path: Path, *, workers: int
) -> None:
    """Pydantic would be 10 MiB that a process keeps from its first reload on: it tells what changed without."""
    inbound, probes, api, dead = free_ports(4)
    base = BASE.format(inbound=inbound, probes=probes, app=dead, dead=dead)
    base = base.replace("127.0.0.1:0", f"127.0.0.1:{api}").replace(
        "version: 1", f"version: 1\nworkers: {workers}"
    )
    file = tmp_path / "sidecar.yaml"
    file.write_text(base + ROUTES)
    hand = Operator(api)
    async with sidecar(file, probes, tmp_path / "log") as running:
        await running.logged('"process.started"', times=1 if workers == 1 else 1 + workers)
        changed = f"{base.replace('50s', '40s')}  extra: {{endpoints: ['127.0.0.1:1']}}\n{ROUTES}"
        file.write_text(changed.replace("drain: {delay: 0s}", "drain: {delay: 1s}"))
        told = await hand.post("/reload")
        assert "circuit_breaker.open_for" in str(told["diff"]["routes"])
        assert told["diff"]["process"]
        file.write_text(BAD)
        assert not (await hand.post("/reload"))["is_success"]
        config = await hand.get("/config")
        assert "circuit_breaker.open_for" in config["active"]["routes"][0]
        assert config["last_change"]["diff"] == told["diff"]
        await hand.get("/status")
        for path in ("routes", "upstreams", "breakers", "breakers/app", "history", "outcomes/app"):
            assert (await admin(api, "GET", f"/{path}"))[0] == 200
        found = libraries(running)
        assert len(found) >= workers
        assert {words for words, names in found.items() if names} == set()


async def test_a_signal_reloads_at_once(tmp_path: Path) -> None:
    inbound, probes, dead = free_ports(3)
    base = BASE.format(inbound=inbound, probes=probes, app=dead, dead=dead)
    file = tmp_path / "sidecar.yaml"
    file.write_text(base + ROUTES)
    async with sidecar(file, probes, tmp_path / "log") as running:
        file.write_text(BAD)
        running.process.send_signal(signal.SIGHUP)
        await until_refused(running, 1)
        file.write_text(variant(base, 7))
        running.process.send_signal(signal.SIGHUP)
        await until_served(inbound, 7)
        assert await running.metric("sidecar_config_last_reload_success") == 1
    assert running.process.returncode == 0


async def test_a_mistake_that_is_taken_back_is_over(tmp_path: Path) -> None:
    inbound, probes, dead = free_ports(3)
    base = BASE.format(inbound=inbound, probes=probes, app=dead, dead=dead)
    file = tmp_path / "sidecar.yaml"
    file.write_text(base + ROUTES)
    async with sidecar(file, probes, tmp_path / "log") as running:
        file.write_text(BAD)
        await until_refused(running, 1)
        assert await running.metric("sidecar_config_last_reload_success") == 0
        assert await running.metric("sidecar_config_generation") == 1
        file.write_text(base + ROUTES)
        while await running.metric("sidecar_config_last_reload_success") != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert await running.metric("sidecar_config_generation") == 1
