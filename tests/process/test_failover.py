"""Failover between real servers: nginx is stopped and started under load, and nobody is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.nginx import Nginx, needs_nginx
from tests.support.ports import free_ports
from tests.support.process import sidecar
from tests.support.raw import raw_client

pytestmark = pytest.mark.process

GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
PATIENCE_SECONDS = 120.0


def named(folder: Path, name: str, port: int) -> Nginx:
    """One that says its name."""
    (folder / name).mkdir()
    return Nginx(folder / name, str(port), f'location / {{ return 200 "{name}"; }}')


async def ask(port: int) -> tuple[int, bytes]:
    async with raw_client(port) as client:
        await client.send(GET)
        (answer,) = await client.responses([b"GET"])
        return answer.status, answer.body


async def until(port: int, name: bytes) -> None:
    """The first answer by this server; all before it are good, too."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            status, body = await ask(port)
            assert status == 200
            if body == name:
                return


@needs_nginx
@pytest.mark.parametrize("check", ["health_check: {path: /, interval: 200ms, timeout: 200ms}", ""])
async def test_the_load_goes_over_and_comes_back(tmp_path: Path, check: str) -> None:
    inbound, probes, admin, first, second = free_ports(5)
    home, other = named(tmp_path, "home", first), named(tmp_path, "other", second)
    failover = "failover: {to: [other], back: 70% for 1s}"
    file = tmp_path / "sidecar.yaml"
    file.write_text(f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
telemetry: {{access_log: {{format: "off"}}}}
drain: {{delay: 0s}}
upstreams:
  home: {{endpoints: ["127.0.0.1:{first}"], {failover}{", " + check if check else ""}}}
  other: {{endpoints: ["127.0.0.1:{second}"]}}
routes:
- name: app
  upstream: home
  circuit_breaker: {{consecutive_failures: 1, open_for: 1s, max_open_for: 1s}}
""")
    try:
        home.start()
        other.start()
        async with sidecar(file, probes, tmp_path / "sidecar.log"):
            assert await ask(inbound) == (200, b"home")
            home.stop()
            status, _ = await ask(inbound)
            assert status in (200, 502), (
                "without another endpoint the first one pays, unless a check was quicker"
            )
            for _ in range(50):
                assert await ask(inbound) == (200, b"other")
            home.start()
            await until(inbound, b"home")
            log = (tmp_path / "sidecar.log").read_text()
            assert log.count('"kind":"failover.began"') == 1
    finally:
        home.stop()
        other.stop()
