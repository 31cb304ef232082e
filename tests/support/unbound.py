"""A real nameserver (unbound) whose records are changed while it runs."""

from __future__ import annotations

import asyncio
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.ports import free_ports

CONFIG = """\
server:
  directory: "{folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  interface: 127.0.0.1
  port: {port}
  do-ip6: no
  module-config: "iterator"
  local-zone: "test." static
remote-control:
  control-enable: yes
  control-interface: "{folder}/control"
  control-use-cert: no
"""


def find(program: str) -> str | None:
    """Debian puts it where not everybody looks."""
    return shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")


class Unbound:
    """Answers for the zone `test`."""

    def __init__(self, config: Path, port: int) -> None:
        self._config = config
        self.address = f"127.0.0.1:{port}"

    async def replace(self, gone: Iterable[str], records: Iterable[str]) -> None:
        """Take away all records of some names, and put others there, in one step each."""
        await self._tell("local_datas_remove", gone)
        await self._tell("local_datas", records)

    async def _tell(self, what: str, lines: Iterable[str]) -> None:
        code, output = await self._control(what, "".join(f"{line}\n" for line in lines).encode())
        assert code == 0, output

    async def _control(self, what: str, lines: bytes = b"") -> tuple[int | None, str]:
        program = find("unbound-control")
        assert program is not None
        process = await asyncio.create_subprocess_exec(
            program, "-c", str(self._config), what, stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        output, errors = await process.communicate(lines)
        return process.returncode, (output + errors).decode()

    async def ready(self) -> None:
        while True:
            if (await self._control("status"))[0] == 0:
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def unbound(folder: Path) -> AsyncIterator[Unbound]:
    """Run it until the end of the block."""
    (port,) = free_ports(1)
    config = folder / "unbound.conf"
    config.write_text(CONFIG.format(folder=folder, port=port))
    program = find("unbound")
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program, "-d", "-c", str(config), stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        server = Unbound(config, port)
        await server.ready()
        yield server
    finally:
        process.terminate()
        await process.wait()
