"""A real sidecar process for tests: started, waited for, asked, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import hanging

READY_SECONDS = 120.0
"""Against hanging: on a busy machine a start of half a second takes ten."""
END_SECONDS = 60.0
"""The same for the end; then it is killed."""


@dataclass
class Running:
    """A sidecar process that is ready."""

    process: asyncio.subprocess.Process
    log: Path
    """Its standard output and error."""
    probes: int

    async def get(self, path: str) -> tuple[int, str]:
        """Ask the probe listener; status and body."""
        return await http_get(self.probes, path)

    async def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        _, text = await self.get("/metrics")
        for line in text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise AssertionError(f"no metric {name} in\n{text}")

    async def logged(self, needle: str, *, times: int = 1) -> str:
        """Wait until the log holds `needle` so many times; return the log."""
        while True:
            text = self.log.read_text()
            if text.count(needle) >= times:
                return text
            await asyncio.sleep(0.01)

    def memory_kib(self) -> int:
        """Resident memory of the process alone."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")

    async def ended(self) -> int:
        """Wait for the end; the exit code."""
        return await self.process.wait()


async def admin(port: int, method: str, path: str) -> tuple[int, str]:
    """Ask the admin API, which answers nobody who calls it by a strange name."""
    return await http_get(port, path, method=method, host="localhost")


async def http_get(
    port: int, path: str, headers: str = "", *, method: str = "GET", host: str = "x"
) -> tuple[int, str]:
    """One GET, or another request without a body, on its own connection: status and the rest as text."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n".encode()
        )
        answer = (await reader.read()).decode()
    finally:
        writer.close()
    return int(answer.split(" ", 2)[1]), answer.partition("\r\n\r\n")[2]


@asynccontextmanager
async def sidecar(
    file: Path,
    probes: int,
    log: Path,
    command: Sequence[str] = ("-m", "sidecar", "run"),
    open_files: Sequence[int] = (),
) -> AsyncIterator[Running]:
    """Run `python COMMAND FILE` until the end of the block; ready when entered. `open_files`: descriptors that it
    inherits."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            str(file),
            stdout=output,
            stderr=output,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=open_files,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **hanging.ENVIRON},
        )
    running = Running(process, log, probes)
    try:
        await _ready(running)
        yield running
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(END_SECONDS):
                    await process.wait()
            except TimeoutError:
                print(await hanging.told(running))
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


async def output_until(process: asyncio.subprocess.Process, word: str) -> str:
    """What a program prints up to the line with this word."""
    assert process.stdout is not None
    output = ""
    while word not in output:
        line = await process.stdout.readline()
        assert line, output
        output += line.decode()
    return output


async def _ready(running: Running) -> None:
    async with hanging.within(READY_SECONDS, running, {running.probes}):
        while running.process.returncode is None:
            with contextlib.suppress(OSError):
                if (await running.get("/readyz"))[0] == 200:
                    return
            await asyncio.sleep(0.02)
    raise AssertionError(f"the sidecar ended:\n{running.log.read_text()}")
