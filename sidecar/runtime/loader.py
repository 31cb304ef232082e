"""Loads configurations in another process, so that the event loop never waits for YAML.

The process is started by the first load (or `warm`, when one is about to come) and ends after a minute without
work, because it takes as much memory as the proxy itself. Owned by one part; one load at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import pickle
import subprocess
from collections.abc import Mapping
from typing import IO

from sidecar.config.problems import ConfigError
from sidecar.config.process.pickles import END, LENGTH_BYTES, PROBLEMS, Unpacking, frame
from sidecar.core.own_lack import is_own_lack
from sidecar.core.snapshot import Snapshot
from sidecar.runtime import first_loading

IDLE_SECONDS = 60.0
NICENESS = 10
"""Traffic goes first where both want the same core."""
LOAD_TIMEOUT_SECONDS = 30.0
REAP_SECONDS = 0.002
"""Between two looks at whether a process that was killed has ended."""
LATE_REAP_SECONDS = 0.1
"""The same for one that ends by itself."""


_BROKEN = (asyncio.IncompleteReadError, pickle.UnpicklingError, EOFError, RuntimeError)
"""What comes of a process that was killed: half an answer, and what uvloop says of a pipe that it has closed already
(RuntimeError)."""


class LoaderFailed(Exception):
    """The loading process ended or hung; nothing is known of the configuration."""

    def __init__(self, text: str, *, is_own_lack: bool = False) -> None:
        """`is_own_lack`: it could not be started, for want of file descriptors or memory; later it may be."""
        super().__init__(text)
        self.is_own_lack = is_own_lack


class Loader:
    """The loading process, as seen from the loop."""

    def __init__(
        self,
        most_routes: int | None = None,
        niceness: int = NICENESS,
        started: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """`most_routes`: a configuration with more is refused, see `memory_watch.most_routes`. `niceness`: 0 where
        nothing is served before it has loaded. `started`: a process that is there already (`first_loading.py`)."""
        self._started = started
        self._most_routes = most_routes
        self._niceness = niceness
        self._process: _Process | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def warm(self) -> None:
        """Start the process now: it takes half a second, which may pass while a change settles."""
        if self._process is not None and self._process.returncode is not None:
            self._process.let_go()
            self._process = None
        if self._process is None:
            started, self._started = self._started, None
            process = _Process(started or first_loading.started(self._niceness))
            try:
                await process.take_over()
                self._process = process
            finally:
                if self._process is None:
                    process.kill()
                    process.let_go()
        self._rest()

    async def load(self, path: str, environ: Mapping[str, str]) -> Snapshot:
        """Load the file or directory at `path`.

        Raises:
            ConfigError: with every problem found.
            LoaderFailed: there is no verdict.
        """
        is_done = False
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_SECONDS):
                await self.warm()
                snapshot = await self._ask(path, environ)
                is_done = True
                return snapshot
        except TimeoutError:
            raise LoaderFailed(f"loading took more than {LOAD_TIMEOUT_SECONDS:g} s") from None
        except OSError as error:
            if not is_own_lack(error) and error.errno != errno.EAGAIN:  # no more processes (fork(2))
                raise LoaderFailed(f"the loading process ended: {error!r}") from error
            detail = f"{error.strerror}: nothing is known of the configuration, and it is tried again"
            raise LoaderFailed(detail, is_own_lack=True) from error
        except _BROKEN as error:
            raise LoaderFailed(f"the loading process ended: {error!r}") from error
        except ConfigError:
            is_done = True
            raise
        finally:
            if not is_done:  # an answer may still be on its way to nobody
                await self.close()
            self._rest()

    async def _ask(self, path: str, environ: Mapping[str, str]) -> Snapshot:
        assert self._process is not None
        process = self._process
        request = pickle.dumps((path, dict(environ), self._most_routes))
        process.stdin.write(frame(request))
        await process.stdin.drain()
        unpacking = Unpacking()
        error: ConfigError | None = None
        while True:
            payload = await _read(process.stdout)
            if payload[:1] == END:
                break
            if payload[:1] == PROBLEMS:
                error = pickle.loads(payload[1:])
            elif error is None:
                unpacking.add(payload[1:])
            await asyncio.sleep(0)
        if error is None:
            return unpacking.snapshot()
        try:
            raise error
        finally:
            del (
                error
            )  # its traceback has this frame, which would have it: a cycle for each file that is refused

    async def close(self) -> None:
        """End the process, whatever it does."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        process, self._process = self._process, None
        started, self._started = self._started, None
        if started is not None:  # nobody has come to ask it
            process = _Process(started)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _rest(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(IDLE_SECONDS, self._let_go) if self._process is not None else None

    def _let_go(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.let_go()


class _Process:
    """A loading process, whose pipes are the loop's."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self.stdout = asyncio.StreamReader()
        self.stdin: asyncio.StreamWriter
        self._process = process
        self._ends: list[IO[bytes] | asyncio.BaseTransport | None] = [process.stdin, process.stdout]
        """Of the pipes: files until they are the loop's, and then transports."""

    async def take_over(self) -> None:
        """Its pipes are the loop's from here on."""
        loop = asyncio.get_running_loop()
        reading = asyncio.StreamReaderProtocol(self.stdout)
        self._ends.clear()  # whoever breaks off here has the loop close them
        output, _ = await loop.connect_read_pipe(lambda: reading, self._process.stdout)
        self._ends.append(output)
        sink, writing = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, self._process.stdin)
        self._ends.append(sink)
        self.stdin = asyncio.StreamWriter(sink, writing, None, loop)

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        self._process.kill()

    def let_go(self) -> None:
        """It ends with its input, and nobody waits for that."""
        self._close()
        self._reap()

    async def wait(self) -> None:
        """Once it was killed."""
        self._close()
        while self._process.poll() is None:  # noqa: ASYNC110  (no event comes of it)
            await asyncio.sleep(REAP_SECONDS)
        await asyncio.sleep(0)  # transports end in the next turn

    def _close(self) -> None:
        for one in self._ends:
            if one is not None:
                one.close()

    def _reap(self) -> None:
        """Look at it until it has ended; else its entry would stay in the system's table."""
        if self._process.poll() is None:
            asyncio.get_running_loop().call_later(LATE_REAP_SECONDS, self._reap)


async def _read(stream: asyncio.StreamReader) -> bytes:
    length = await stream.readexactly(LENGTH_BYTES)
    return await stream.readexactly(int.from_bytes(length, "big"))
