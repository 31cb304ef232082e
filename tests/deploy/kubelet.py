"""What a kubelet does with one pod, for processes on this machine: order, probes, hooks and signals of KEP-753.

Times are a fifth to a tenth of a cluster's. All pods share one host, so each has ports of its own, handed to the
configuration of `deploy/` by the environment, as `sidecar inject` does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from sidecar.kubernetes.choices import Mode
from sidecar.kubernetes.container import CONFIG_FILE
from sidecar.kubernetes.plan import Plan, plan
from sidecar.kubernetes.settings import Settings
from tests.support.ports import free_ports

APP = Path(__file__).with_name("app.py")
STARTUP_SECONDS = 240.0
"""Against hanging, on a busy machine too."""


class Pod:
    """A sidecar and an app. `app_arguments` are those of `app.py`.

    The sidecar's container is the one that `sidecar inject` writes, so its arguments, probes and hooks are run as a
    kubelet would run them.
    """

    def __init__(
        self,
        config: Path,
        app_arguments: list[str],
        session: aiohttp.ClientSession,
        *,
        mode: Mode = Mode.NATIVE,
        grace_seconds: int = 30,
        is_job: bool = False,
    ) -> None:
        self.app_port, self.inbound, self.outbound, self.probes, self.admin = free_ports(5)
        self.sidecar: asyncio.subprocess.Process | None = None
        self.app: asyncio.subprocess.Process | None = None
        self.sidecar_restarts = 0
        self.log = config.with_suffix(f".{self.inbound}.log")
        self._config, self._arguments, self._session = config, app_arguments, session
        self._mode, self._is_restarted = mode, mode is Mode.NATIVE or not is_job
        spec = {"containers": [{"name": "app"}], "terminationGracePeriodSeconds": grace_seconds}
        planned = plan({}, spec, {}, Settings(image="sidecar", mode=mode))
        assert isinstance(planned, Plan)
        self._container = planned.container
        self._keeping: asyncio.Task[None] | None = None
        self._is_ending = False

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "APP_PORT": str(self.app_port),
            "INBOUND_PORT": str(self.inbound),
            "OUTBOUND_PORT": str(self.outbound),
            "PROBES_PORT": str(self.probes),
            "ADMIN_PORT": str(self.admin),
            "http_proxy": f"http://127.0.0.1:{self.outbound}",
            "no_proxy": "127.0.0.1",
            "QUIT_URL": f"http://127.0.0.1:{self.admin}/quitquitquit",
        }

    async def start(self) -> None:
        """The sidecar; the app once the sidecar's startup probe has passed, or its postStart hook has ended."""
        await self._start_sidecar()
        self._keeping = asyncio.create_task(self._keep_sidecar())
        if self._mode is Mode.NATIVE:
            await self.passes(self.probes, self._container["startupProbe"]["httpGet"]["path"])
        else:
            assert await self._hook("postStart") == 0
        self.app = await self._run(str(APP), *self._arguments)

    async def ready(self) -> None:
        """Both readiness probes."""
        await self.passes(self.probes, self._container["readinessProbe"]["httpGet"]["path"])
        await self.passes(self.app_port, "/healthz")

    async def end(self, pre_stop: asyncio.Event) -> tuple[int, int]:
        """All preStop hooks at once, the app's until `pre_stop` is set; then SIGTERM to the app, and to the sidecar
        when the app is gone. Before native sidecars, each container gets it when its own hook has ended.

        Returns:
            The exit codes of app and sidecar.
        """
        self._is_ending = True
        if self._mode is Mode.NATIVE:
            app_code, _ = await asyncio.gather(self._end_app(pre_stop), self._drain_hook())
            return app_code, await self.end_sidecar()
        app_code, code = await asyncio.gather(self._end_app(pre_stop), self._end_container())
        return app_code, code

    async def _end_app(self, pre_stop: asyncio.Event) -> int:
        await pre_stop.wait()
        assert self.app is not None
        self.app.send_signal(signal.SIGTERM)
        return await self.app.wait()

    async def _end_container(self) -> int:
        await self._drain_hook()
        return await self.end_sidecar()

    async def end_sidecar(self) -> int:
        """What follows the end of the last container of a pod, or of a Job."""
        self._is_ending = True
        assert self.sidecar is not None
        self.sidecar.send_signal(signal.SIGTERM)
        return await self.sidecar.wait()

    async def kill(self) -> None:
        """Whatever is left, when a test is over."""
        self._is_ending = True
        for process in (self.app, self.sidecar):
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()
        if self._keeping is not None:
            self._keeping.cancel()

    async def passes(self, port: int, path: str) -> None:
        """Probe until it succeeds.

        Raises:
            AssertionError: not in time; with what the sidecar said and how often it was started again.
        """
        try:
            async with asyncio.timeout(STARTUP_SECONDS):
                while not await self._probe(port, path):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            said = self.log.read_text()[-2000:]
            raise AssertionError(f"{path} failed; {self.sidecar_restarts} restarts:\n{said}") from None

    async def logged(self, needle: str, *, times: int) -> None:
        """Wait until the sidecar's log, over all its starts, holds `needle` so many times."""
        async with asyncio.timeout(STARTUP_SECONDS):
            while self.log.read_text().count(needle) < times:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def metrics(self) -> str:
        async with self._session.get(f"http://127.0.0.1:{self.probes}/metrics") as answer:
            return await answer.text()

    async def _probe(self, port: int, path: str) -> bool:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with self._session.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status == 200
        return False

    async def _start_sidecar(self) -> None:
        self.sidecar = await self._sidecar_command(self._container["args"])

    async def _keep_sidecar(self) -> None:
        """restartPolicy: Always, without the back-off that later restarts have; Never in a Job's own container."""
        while True:
            assert self.sidecar is not None
            await self.sidecar.wait()
            if self._is_ending or not self._is_restarted:
                return
            self.sidecar_restarts += 1
            await self._start_sidecar()

    async def _drain_hook(self) -> None:
        assert await self._hook("preStop") == 0

    async def _hook(self, name: str) -> int:
        program, *words = self._container["lifecycle"][name]["exec"]["command"]
        assert program == "sidecar"
        return await (await self._sidecar_command(words)).wait()

    async def _sidecar_command(self, words: list[str]) -> asyncio.subprocess.Process:
        own = [str(self._config) if word == CONFIG_FILE else word for word in words]
        with self.log.open("ab") as log:
            return await self._run("-m", "sidecar", *own, output=log.fileno())

    async def _run(
        self, *arguments: str, output: int = asyncio.subprocess.DEVNULL
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            env=self.environment,
            stdout=output,
            stderr=output,
        )
