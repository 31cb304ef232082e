"""schemathesis against the admin API of a real process: what its OpenAPI file allows is done, the rest is refused.

Its inputs are made anew from the file in each run, but the same in each, so a failure here stays one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from tests.support.process import sidecar

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

EXAMPLES = 10
"""Of each operation, in the phase that makes them up."""
ENDING = "^/(drain|quitquitquit)$"
ENDLESS = "^/(events|tap)$"
"""Their answers have no end to wait for; `tests/scenarios/test_admin_{events,tap}.py` check what is sent."""


def written(folder: Path, *, admin_key: str = "", key: str = "drain: {delay: 0s}") -> tuple[Path, int, int]:
    """A configuration with the route that the file's examples name; its admin and probe ports."""
    inbound, admin, probes = free_ports(3)
    file = folder / "sidecar.yaml"
    file.write_text(f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"{admin_key}}}
upstreams: {{payments: {{endpoints: ["127.0.0.1:9"]}}}}
routes:
- name: checkout-to-payments
  upstream: payments
  circuit_breaker: {{candidate: {{failure_rate_threshold: 30%}}}}
{key}
""")
    return file, admin, probes


async def judged(folder: Path, admin: int, *options: str) -> str:
    """What schemathesis says, if it found nothing."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{admin}/openapi.json"),
        *("--checks", "all", "--generation-deterministic", "--no-color"),
        *("--max-examples", str(EXAMPLES), "--continue-on-failure", *options),
        cwd=folder,
        env={**os.environ, "NO_PROXY": "*"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    told = output.decode()
    assert process.returncode == 0, told
    return told


async def test_it_finds_nothing_in_what_can_be_asked_again_and_again(tmp_path: Path) -> None:
    file, admin, probes = written(tmp_path)
    async with sidecar(file, probes, tmp_path / "log") as running:
        told = await judged(tmp_path, admin, "--exclude-path-regex", f"{ENDING}|{ENDLESS}")
        assert "Operations:       15 selected / 19 total" in told
        assert "No issues found" in told
        assert (await running.get("/readyz"))[0] == 200
        log = running.log.read_text()
    assert "Traceback" not in log
    assert log.count('"kind":"admin.change"') > EXAMPLES


async def test_it_finds_nothing_in_what_ends_the_process_or_needs_a_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a secret\n")
    token.chmod(0o600)
    # The delay lasts until an interrupt, which leaves it out.
    file, admin, probes = written(tmp_path, admin_key=f", token_file: {token}", key="drain: {delay: 600s}")
    async with sidecar(file, probes, tmp_path / "log") as running:
        told = await judged(
            tmp_path, admin, "--header", "Authorization: Bearer a secret", "--include-path-regex", ENDING
        )
        assert "Operations:       2 selected / 19 total" in told
        assert "No issues found" in told
        assert (await running.get("/readyz"))[0] == 503
        running.process.send_signal(signal.SIGINT)
        assert await running.ended() == 0
        assert "Traceback" not in running.log.read_text()
