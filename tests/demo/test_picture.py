"""The live picture of the demo: that it fits every terminal, and that what matters is in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sidecar.demo.ledger import Ledger
from sidecar.demo.picture import picture
from sidecar.demo.processes import Change, Ports, Sidecar
from sidecar.demo.services import Asked, Served, Service
from sidecar.demo.stage import NAMES, ROUTE, Journal, Stage

OPEN = {"state": "open", "failure_count": 0, "rejected": 30, "next_probe_seconds": 1.25}
CLAIM = "20 of 20 calls refused in 3.3 ms (median; at most 3.6 ms), while payments saw 0 calls"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """In the middle of the third scene: payments is dead, the last of many calls was refused."""
    journal = Journal()
    services = [Service(name, journal.log) for name in NAMES]
    sidecars = [Sidecar(name, Ports(40_001, 40_002, 40_003, 40_004), tmp_path) for name in NAMES]
    stage = Stage(services, sidecars, journal)
    journal.claim("a claim of the scene before", holds=True)
    journal.open(
        "3/7 payments dies",
        "Five failures open the breaker; it refuses at once, sends one probe, and closes.",
    )
    journal.claim(CLAIM, holds=True)
    for service in services:
        for number in range(20):
            call = Served(
                service.name, "/fast", 1994, f"{number:032}", f"demo-{number:04}", "user-1", float(number)
            )
            service.served.append(call)
            journal.log(call)
    stage.orders.asked += [Asked(200, "", 0.1)] * 90 + [Asked(502, "connection_refused", 0.0)] * 5
    stage.orders.asked += [Asked(503, "circuit_open", 0.0)] * 3
    yield stage
    await stage.session.close()
    for service in services:
        service.close()


def drawn(stage: Stage, width: int, height: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(picture(stage, OPEN, 100.0, width, height))
    return capture.get().splitlines()


@pytest.mark.parametrize(("width", "height"), [(40, 19), (60, 23), (80, 23), (100, 30), (200, 59)])
async def test_it_fits_and_shows_what_matters(stage: Stage, width: int, height: int) -> None:
    stage.journal.change(Change(ROUTE, "closed", "open", "consecutive_failures", 2.0, 95.0))
    lines = drawn(stage, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "██ OPEN   next probe in 1.2 s" in text
    assert "breaker closed → open" in text  # what has just happened
    assert "DEAD" in text
    assert "1994 ms" in text
    assert "http://127.0.0.1:40003/" in text  # the dashboard
    (calls,) = [line for line in lines if line.startswith("│ calls     ")]
    assert "✓✗✗✗✗✗⊘⊘⊘ " in calls  # the newest, whatever there is room for
    assert ("refused" in calls) is (width >= 80)
    bars = [line for line in lines if line.startswith("→ ") and "█" in line]
    assert len(bars) == (3 if width >= 68 else 0)


@pytest.mark.parametrize(("width", "height"), [(40, 20), (80, 23), (200, 59)])
async def test_the_ledger_has_a_line_of_its_own(stage: Stage, width: int, height: int) -> None:
    stage.ledger = Ledger(stage.journal.log)
    stage.ledger.is_alive = True
    last = stage.payments.served[-1]
    stage.ledger.served.append(replace(last, service="ledger", budget_ms=1820, status=200))
    lines = drawn(stage, width, height)
    await stage.ledger.stop()
    assert len(lines) <= height
    (line,) = [line for line in lines if line.startswith("→ ledger")]
    assert "200" in line
    assert "1820 ms" in line


async def test_each_change_of_state_is_told_in_words(stage: Stage) -> None:
    told: list[str] = []
    stage.journal.on_line = lambda kind, text: told.append(f"{kind} {text}")
    for before, after, reason in (
        ("closed", "open", "failure_rate"),
        ("open", "half_open", "wait_elapsed"),
        ("half_open", "closed", "probe_succeeded"),
        ("closed", "forced_open", "forced"),
    ):
        stage.journal.change(Change(ROUTE, before, after, reason, None, 1.0))
    assert told == [
        f"change {ROUTE}: closed → open (failure_rate): from now on it refuses at once",
        f"change {ROUTE}: open → half_open (wait_elapsed): one call may try, the probe; all others are refused",
        f"change {ROUTE}: half_open → closed (probe_succeeded): the probe went well, all may pass again",
        f"change {ROUTE}: closed → forced_open (forced)",
    ]
    assert stage.journal.note_text == "breaker closed → forced_open (forced)"
