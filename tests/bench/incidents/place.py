"""Where an incident happens: a real sidecar before a service that is as ill as its path says, and a shell."""

from __future__ import annotations

import asyncio
import datetime
import os
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from tests.support.certificates import Certificates, now
from tests.support.ports import free_ports
from tests.support.process import Running, http_get, sidecar
from tests.support.upstream import answering, scripted
from tests.support.web_app import web_app

DAY = datetime.timedelta(days=1)
HEAD = """\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"{listener}}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
drain: {{delay: 0s}}
"""


class Service:
    """Answers `/ill` by 503, `/hang` not before the end, and all else."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        """Somebody asks for `/hang`."""
        self.end = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path == "/hang":
            self.reached.set()
            await self.end.wait()
        return web.Response(status=503 if request.path == "/ill" else 200, text="shop\n")


@dataclass
class Place:
    """One sidecar, with what stands around it."""

    running: Running
    folder: Path
    file: Path
    ports: dict[str, int]
    certificates: Certificates
    service: Service

    async def ask(self, path: str, *fields: str, times: int = 1) -> int:
        """Ask the sidecar for it so many times, one after the other; the last status."""
        status = 0
        for _ in range(times):
            lines = "".join(f"{field}\r\n" for field in fields)
            status, _ = await http_get(self.ports["inbound"], path, lines)
        return status

    async def begin(self, path: str) -> asyncio.Task[int]:
        """Ask, and leave the answer for later; the service has the request when this returns."""
        task = asyncio.create_task(self.ask(path))
        await self.service.reached.wait()
        return task

    async def shell(self, command: str) -> str:
        """What a command prints, its errors too. `sidecar` is this checkout's, and knows where the admin API is."""
        script = f'sidecar() {{ {shlex.quote(sys.executable)} -m sidecar "$@"; }}\n{command}'
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={
                **os.environ,
                "SIDECAR_ADMIN": f"http://127.0.0.1:{self.ports['admin']}",
                "COLUMNS": "160",
                "PYTHONPATH": str(Path(__file__).parents[3]),
            },
        )
        output, _ = await process.communicate()
        return output.decode(errors="replace").rstrip()


@asynccontextmanager
async def place(folder: Path, listener: str, rest: str) -> AsyncIterator[Place]:
    """A sidecar with this configuration: `listener` are further keys of the inbound one, `rest` all after the head.
    Both may name ports in braces: `service`, `ssh`, `nobody` and the sidecar's own; and `folder`."""
    names = ("inbound", "probes", "admin", "nobody")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    certificates = Certificates(folder)
    certificates.pair("shop", "shop", ends=now() + 3 * DAY)
    service = Service()
    async with (
        web_app(service.app()) as ports["service"],
        scripted(answering(b"SSH-2.0-OpenSSH_9.2\r\n")) as ssh,
    ):
        ports["ssh"] = ssh.port
        words = {**ports, "folder": folder}
        file = folder / "sidecar.yaml"
        file.write_text((HEAD + rest).format(listener=listener.format(**words), **words))
        async with sidecar(file, ports["probes"], folder / "log") as running:
            yield Place(running, folder, file, ports, certificates, service)
        service.end.set()
