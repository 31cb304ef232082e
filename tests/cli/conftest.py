"""One sidecar for all tests of commands that ask one; nobody of them leaves a breaker otherwise than it was."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.__main__ import main
from tests.support.ports import free_ports


@dataclass(frozen=True)
class Scene:
    """A sidecar that runs, a folder with files for commands, and a free place for what they write."""

    file: str
    """Of the sidecar that runs; its route answers by itself."""
    admin: str
    inbound: str
    folder: Path


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    inbound, probes, admin = free_ports(3)
    file = folder / "sidecar.yaml"
    file.write_text(f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
drain: {{delay: 0s}}
upstreams: {{app: {{endpoints: ["127.0.0.1:{inbound}"]}}}}
routes:
- {{name: said, match: {{path: {{exact: /said}}}}, respond: {{status: 200, body: said}}}}
- {{name: app, match: {{path: {{exact: /app}}}}, upstream: app, rewrite: {{path: /said}}}}
""")
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "run", str(file)], stdout=log, stderr=log
        )
    try:
        while main(["healthcheck", str(file), "--wait", "1s", "--quiet"]) != 0:
            assert process.poll() is None, (folder / "log").read_text()
        yield Scene(str(file), f"http://127.0.0.1:{admin}", f"http://127.0.0.1:{inbound}", folder)
    finally:
        process.terminate()
        process.wait()
