"""A snapshot on its way to all workers: all of them, or none, and one assignment in each.

First every worker builds it beside what it serves; only when all have, each is told to put it in place. One that
cannot refuses it for all. Who was not there, or did not answer, gets the one in use as soon as it is heard of again.
Owned by control's event loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from sidecar.config.process.pickles import pack
from sidecar.core.snapshot import PASS_THROUGH, Snapshot
from sidecar.runtime.actor import Mailbox
from sidecar.runtime.datapath import DataPath
from sidecar.runtime.reload import Active
from sidecar.runtime.workers import kinds
from sidecar.runtime.workers.channel import AskRefused, NoAnswer
from sidecar.runtime.workers.hub import Hub, WorkerLink
from sidecar.runtime.workers.inherited import packed_file
from sidecar.runtime.workers.orders import Answered, BindThese, Configured, KeepSockets
from sidecar.runtime.workers.sockets import SharedSockets, addresses_of, identity
from sidecar.runtime.workers.supervised import Supervised

PREPARE_SECONDS: Final = 15.0
"""For reading certificates, and for the names of new upstreams."""
COMMIT_SECONDS: Final = 5.0
BIND_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 1.0
"""Between two looks whether somebody has another snapshot."""


class Spread:
    """How a snapshot gets to everybody."""

    def __init__(
        self, hub: Hub, datapath: DataPath, sockets: SharedSockets, supervised: Callable[[], Supervised]
    ) -> None:
        self.active: Active
        """Set by the composition root."""
        self._hub = hub
        self._datapath = datapath
        self._sockets = sockets
        self._supervised = supervised
        self._turn = asyncio.Lock()
        """One snapshot at a time."""
        self._bound: asyncio.Future[str] | None = None
        """What the supervisor says of addresses that it was asked for."""

    async def install(self, snapshot: Snapshot) -> Snapshot:
        """`Install` of control. Raises: OSError, with the first worker's reason."""
        async with self._turn:
            parts = await asyncio.to_thread(lambda: list(pack(snapshot)))
            await self._bind(snapshot)
            try:
                own = await self._datapath.prepare(snapshot)
                try:
                    await self._prepare_all(parts)
                except BaseException:
                    self._datapath.discard(own)
                    raise
            except BaseException:
                self._keep(self._datapath.listeners.sockets.values())
                raise
            installed = self._datapath.commit(own)
            self._hub.figures.retain({PASS_THROUGH, *(route.name for route in installed.routes)})
            generation = self.active.generation + 1
            await asyncio.gather(*(self._commit(link, generation) for link in self._hub.present))
            await self._leave_word(snapshot, generation)
            self._keep(self._datapath.listeners.sockets.values())
            return installed

    def answered(self, answer: Answered) -> None:
        """The supervisor has bound addresses, or cannot."""
        if self._bound is not None and not self._bound.done():
            self._bound.set_result(answer.problem)

    async def run(self, mailbox: Mailbox[Any]) -> None:
        """The part `spread`: brings up to date who has another snapshot. Any message means: look now."""
        while True:
            async with self._turn:
                for link in self._hub.present:
                    if link.digest != self.active.snapshot.digest:
                        await self._bring_up(link)
            await mailbox.get(LOOK_SECONDS)

    async def _bring_up(self, link: WorkerLink) -> None:
        snapshot = self.active.snapshot
        parts = await asyncio.to_thread(lambda: list(pack(snapshot)))
        try:
            await link.channel.ask(kinds.PREPARE, parts, PREPARE_SECONDS)
        except NoAnswer:
            return  # it is tried again
        await self._commit(link, self.active.generation)

    async def _prepare_all(self, parts: list[bytes]) -> None:
        links = self._hub.present
        asked = (link.channel.ask(kinds.PREPARE, parts, PREPARE_SECONDS) for link in links)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for link, answer in zip(links, answers, strict=True):
            if isinstance(answer, AskRefused):
                self._hub.tell_all(kinds.DISCARD)
                raise OSError(f"worker {link.number}: {answer}")
            if isinstance(answer, BaseException) and not isinstance(answer, NoAnswer):
                raise answer

    @staticmethod
    async def _commit(link: WorkerLink, generation: int) -> None:
        try:
            link.digest = await link.channel.ask(kinds.COMMIT, generation, COMMIT_SECONDS)
        except NoAnswer:
            link.digest = ""  # of no snapshot: it is brought up to date later

    async def _bind(self, snapshot: Snapshot) -> None:
        """Have the supervisor bind what is new. Raises: OSError."""
        missing = tuple(one for one in addresses_of(snapshot) if identity(*one) not in self._sockets)
        if not missing:
            return
        self._bound = asyncio.get_running_loop().create_future()
        self._supervised().send(BindThese(missing))
        try:
            async with asyncio.timeout(BIND_SECONDS):
                problem = await self._bound
        except TimeoutError:
            raise OSError("the supervisor does not answer: no address can be bound now") from None
        finally:
            self._bound = None
        if problem:
            raise OSError(problem)

    def _keep(self, sockets: Iterable[Any]) -> None:
        identities = tuple(
            {identity(one.policy.address, f"listeners.{one.policy.name}.address") for one in sockets}
        )
        self._sockets.keep(identities)
        self._supervised().send(KeepSockets(identities))

    async def _leave_word(self, snapshot: Snapshot, generation: int) -> None:
        """For processes that are started from now on."""
        file = await asyncio.to_thread(packed_file, snapshot)
        try:
            drain = snapshot.drain
            order = Configured(generation, drain.delay_seconds + drain.timeout_seconds)
            self._supervised().send(order, (file,))
        finally:
            os.close(file)
