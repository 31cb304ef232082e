"""Certificates that change under load: `tests/bench/rotation.py` in short, without a limit of time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.rotation import Plan, rotate

pytestmark = pytest.mark.process


async def test_nothing_fails_while_certificates_change(tmp_path: Path) -> None:
    outcome = await rotate(Plan(rotations=11, connections=8, rate_per_second=80.0), tmp_path)
    assert outcome.failures == []
    assert len(outcome.shown_seconds) == 10
    assert outcome.requests > 100
    log = (tmp_path / "sidecar.log").read_text()
    assert log.count('"kind":"tls.renewed"') == 10
    key = (tmp_path / "mount" / "tls.key").read_text()
    assert not any(line in log for line in key.splitlines())
