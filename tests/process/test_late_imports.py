"""What a configuration needs for the first time is imported by its reload, and not on the loop."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_ports

pytestmark = pytest.mark.process

LATE = {"sidecar.core.fleet.fleet", "sidecar.kubernetes.endpoint_slices", "sidecar.runtime.fleet.side"}
TELLING = """
import sys, threading
from sidecar.__main__ import main

class Told:
    "Finds nothing: it writes down which thread imports what."
    def find_spec(self, name, *_):
        if threading.current_thread() is threading.main_thread():
            print("by the loop:", name, flush=True)
        else:
            print("by a thread:", name, flush=True)

sys.meta_path.insert(0, Told())
sys.exit(main())
"""
BEFORE = """\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
drain: {{delay: 0s}}
"""
ROUTE = "routes: [{name: app, upstream: app, circuit_breaker: {scope: fleet}}]\n"
ALONE = "routes: [{name: app, upstream: app}]\n"
NEEDED = """\
share: {{redis: {{url: "redis://127.0.0.1:{dead}", fleet: shop}}}}
upstreams: {{app: {{endpoints: ["kubernetes://app.shop:80"]}}}}
"""


async def test_a_reload_imports_what_is_new_in_a_thread(tmp_path: Path) -> None:
    inbound, probes, admin, dead = free_ports(4)
    file = tmp_path / "sidecar.yaml"
    base = BEFORE.format(inbound=inbound, probes=probes, admin=admin)
    file.write_text(f'{base}upstreams: {{app: {{endpoints: ["127.0.0.1:{dead}"]}}}}\n{ALONE}')
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", TELLING, "run", str(file), stdout=asyncio.subprocess.PIPE
    )
    try:
        begun = await said(process, "process.started")
        assert LATE.isdisjoint(begun)
        file.write_text(f"{base}{NEEDED.format(dead=dead)}{ROUTE}")
        process.send_signal(signal.SIGHUP)
        reloaded = await said(process, "fleet.alone")
        assert {reloaded[name] for name in LATE} == {"by a thread"}
    finally:
        process.terminate()
        await process.communicate()
    assert process.returncode == 0


async def said(process: asyncio.subprocess.Process, last: str) -> dict[str, str]:
    """Which modules were imported by whom, until the log has this event."""
    assert process.stdout is not None
    found = {}
    async for line in process.stdout:
        who, is_import, name = line.decode().strip().partition(": ")
        if is_import and who in ("by the loop", "by a thread"):
            found[name] = who
        elif last in who:
            return found
    raise AssertionError(f"it has ended before {last}")
