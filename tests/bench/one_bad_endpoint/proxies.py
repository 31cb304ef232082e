"""The proxies that stand before the endpoints in `live`: their templates, commands, and how they write a server."""

from __future__ import annotations

import string
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.install import program
from tests.bench.targets import TARGETS, await_ok, pinned
from tests.support.ports import free_ports

TEMPLATES = Path(__file__).with_name("peers")


@dataclass(frozen=True)
class Proxy:
    """One of them."""

    name: str
    templates: tuple[str, ...]
    """The first is what the command is given."""
    command: Callable[[str], list[str]]
    server: str
    """One endpoint in the template, with its `port`."""
    between: str = ", "

    def servers(self, ports: Sequence[int]) -> str:
        """All endpoints."""
        return self.between.join(string.Template(self.server).substitute(port=port) for port in ports)


def _traefik() -> str:
    """Beside the interpreter, where its package puts it."""
    beside = Path(sys.executable).with_name("traefik")
    return str(beside) if beside.exists() else program("traefik") or "traefik"


PROXIES = {
    proxy.name: proxy
    for proxy in (
        Proxy(
            "sidecar",
            ("sidecar.yaml",),
            TARGETS["sidecar"].command,
            '"127.0.0.1:$port"',
        ),
        Proxy(
            "envoy",
            ("envoy.yaml",),
            TARGETS["envoy"].command,
            "{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $port}}}}",
        ),
        Proxy(
            "haproxy",
            ("haproxy.cfg",),
            TARGETS["haproxy"].command,
            "server s$port 127.0.0.1:$port",
            "\n    ",
        ),
        Proxy(
            "nginx",
            ("nginx.conf",),
            TARGETS["nginx"].command,
            "server 127.0.0.1:$port;",
            "\n        ",
        ),
        Proxy(
            "traefik",
            ("traefik.yaml", "traefik_routes.yaml"),
            lambda file: [_traefik(), f"--configfile={file}"],
            '{url: "http://127.0.0.1:$port"}',
        ),
    )
}


@contextmanager
def started(proxy: Proxy, ports: Sequence[int], directory: Path, core: int) -> Iterator[int]:
    """The proxy before endpoints at these ports, pinned to a core, once it answers: its port.

    Raises:
        TargetError: it does not become ready.
    """
    port, admin_port, probes_port = free_ports(3)
    for name in proxy.templates:
        text = string.Template((TEMPLATES / name).read_text()).substitute(
            port=port,
            admin_port=admin_port,
            probes_port=probes_port,
            directory=directory,
            servers=proxy.servers(ports),
        )
        (directory / name).write_text(text)
    command = proxy.command(str(directory / proxy.templates[0]))
    with pinned(command, core=core, log=directory / f"{proxy.name}.log") as process:
        await_ok(process, port, "/")
        yield port
