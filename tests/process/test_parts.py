"""A crash in any part is over before traffic notices; one that does not end is told by name, and ends the process."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.process.test_reload import BASE, OK, ROUTES, until_served, variant
from tests.support.ports import free_ports
from tests.support.process import Running, sidecar
from tests.support.traffic import traffic
from tests.support.upstream import answering, scripted

pytestmark = pytest.mark.process

PARTS = ("telemetry", "resolver", "probes", "housekeeper", "health", "reload", "watch")


async def test_a_crashed_part_is_back_and_traffic_never_noticed(tmp_path: Path) -> None:
    """Each in its turn."""
    inbound, probes, dead = free_ports(3)
    async with scripted(answering(OK)) as app:
        base = BASE.format(inbound=inbound, probes=probes, app=app.port, dead=dead)
        file = tmp_path / "sidecar.yaml"
        file.write_text(base + ROUTES)
        command = ("-m", "tests.support.crashing", ",".join(PARTS), "2")
        async with (
            sidecar(file, probes, tmp_path / "log", command) as running,
            traffic(inbound, ["/app"], connections=4, per_second=200) as record,
        ):
            for number, part in enumerate(PARTS, start=1):
                running.process.send_signal(signal.SIGUSR1)
                await running.logged(f"part {part} crashed", times=2)
                file.write_text(variant(base, number))
                await until_served(inbound, number)
                await until_ready(running)
        assert record.failures == []
        assert running.process.returncode == 0


async def until_ready(running: Running) -> None:
    """The probes are gone for a moment if they are the part that crashed."""
    while True:
        try:
            assert (await running.get("/readyz"))[0] == 200
            return
        except OSError:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("part", ["resolver", "watch"])
async def test_a_part_that_crashes_for_ever_ends_the_process_by_name(part: str, tmp_path: Path) -> None:
    inbound, probes, dead = free_ports(3)
    file = tmp_path / "sidecar.yaml"
    file.write_text(BASE.format(inbound=inbound, probes=probes, app=dead, dead=dead) + ROUTES)
    command = ("-m", "tests.support.crashing", part, "1000")
    async with sidecar(file, probes, tmp_path / "log", command) as running:
        running.process.send_signal(signal.SIGUSR1)
        assert await running.ended() == 1
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last == f"sidecar: part {part} crashed 6 times within 60 s, the last time with Planted: {part}"
