"""The rows of deploy/INCIDENTS.md lead to the cause: those of `tests.bench.incidents`, and two of them played."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bench.incidents.__main__ import led
from tests.bench.incidents.cases import INCIDENTS

pytestmark = pytest.mark.process
PAGE = Path(__file__).parents[2] / "deploy" / "INCIDENTS.md"


def test_each_has_its_row_and_three_commands_at_most() -> None:
    rows = re.findall(r"^\| (?:\d{3} \| )?(?:<a [^>]*></a>)?([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert len(INCIDENTS) >= 12
    assert {incident.row for incident in INCIDENTS} - named == set()
    assert max(len(incident.steps) for incident in INCIDENTS) <= 3
    assert all(incident.cause for incident in INCIDENTS)


@pytest.mark.parametrize("row", ["SidecarErrorRatioHigh", "SidecarCertificateExpiring"])
async def test_its_commands_show_the_cause(row: str) -> None:
    (incident,) = (one for one in INCIDENTS if one.row == row)
    told, missing = await led(incident)
    assert not missing, told
