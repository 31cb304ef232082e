"""New configuration → what serves: loaded elsewhere, built beside what is live, put in place by one assignment.

`Active` owns what is in use (snapshot, generation, counters) and is the only one to change it. Two parts work on
it: `reload` takes requests from whoever asks (the watcher, SIGHUP, the admin API), one at a time; `watch` looks at
the files and asks. A configuration that is refused changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field, replace
from functools import partial

from sidecar.admin.process import Ending
from sidecar.config.problems import ConfigError
from sidecar.config.tell.diff import Diff, Kind, diff, waiting
from sidecar.config.watch import POLL_SECONDS, SETTLE_SECONDS, Settling, Watch
from sidecar.core.dataclass import dataclass
from sidecar.core.own_lack import is_own_lack
from sidecar.core.snapshot import Snapshot
from sidecar.core.sources import ConfigNumbers, ReloadReport
from sidecar.runtime import memory
from sidecar.runtime.actor import Mailbox
from sidecar.runtime.datapath import DataPath
from sidecar.runtime.imports import import_for
from sidecar.runtime.loader import Loader, LoaderFailed
from sidecar.runtime.lookout import Lookout

NOTHING = Diff()

Install = Callable[[Snapshot], Awaitable[Snapshot]]
"""Builds a snapshot and puts it in place; returns the one in use, which has the old routes where they are equal.
Raises: OSError, if that cannot be done and nothing has changed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one reload went: the answer of `POST /reload`, a line in the log, a span."""

    trigger: str
    """`file`, `signal` or `api`."""
    report: ReloadReport
    diff: Diff = NOTHING
    pending_restart: tuple[str, ...] = ()
    """Keys that differ from what the process was started with and take effect at its next start only."""
    files: tuple[str, ...] = ()
    """All that was read or looked for."""
    digest: str = ""
    """Of their content; empty when nothing is known."""
    is_undecided: bool = False
    """It could not be looked into: for want of file descriptors or memory of our own, or since the process that loads
    was killed."""
    has_crashed: bool = False
    """The latter."""

    @property
    def is_success(self) -> bool:
        return self.report.is_success


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Asks for a reload."""

    trigger: str
    reply: asyncio.Future[Outcome] | None = None
    is_final: bool = True
    """False: a refusal may be that of a half-written file, so nobody is told but who asked."""

    def fail(self, error: Exception) -> None:
        """Tell who asked that there is no outcome."""
        if self.reply is not None and not self.reply.done():
            self.reply.set_exception(error)


def already_set() -> asyncio.Event:
    """An event that nobody has to wait for."""
    event = asyncio.Event()
    event.set()
    return event


class Warm:
    """A change is coming: have the loading process ready."""


class Look:
    """It is worth looking at the files."""


LOOK = Look()


class Active:
    """The configuration in use. Changed on the event loop; its numbers are read from anywhere."""

    def __init__(self, snapshot: Snapshot, datapath: DataPath, install: Install | None = None) -> None:
        """`install` puts a snapshot in place; None: in this process alone."""
        self._install = install or datapath.install
        self.snapshot = snapshot
        self.started_with = snapshot
        self.generation = 1
        self.since = datapath.service.clock()
        self.last: Outcome | None = None
        """The last reload, good or bad."""
        self.last_change: Outcome | None = None
        """The last one that changed anything: what an operator asks for, however many reloads found nothing since."""
        self.left_waiting: tuple[str, ...] = ()
        """What reloads before this process have left for the next start."""
        self._datapath = datapath
        self._succeeded = 0
        self._failed = 0

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the configuration that was offered last; empty when it is the one in use."""
        return self.last.report.problems if self.last is not None else ()

    @property
    def pending_restart(self) -> tuple[str, ...]:
        return self.last.pending_restart if self.last is not None else self.left_waiting

    def numbers(self, now: float) -> ConfigNumbers:
        return ConfigNumbers(
            self.generation,
            self._succeeded,
            self._failed,
            self.last is None or self.last.is_success,
            now - self.since,
        )

    async def install(self, snapshot: Snapshot) -> Diff:
        """Build what is new, then put `snapshot` in place.

        Raises:
            OSError: a listener's address cannot be bound; nothing has changed then.
        """
        found = await asyncio.to_thread(self._prepared, snapshot)
        memory.hold()
        try:
            self.put_in_place(await self._install(snapshot), self.generation + 1)
            await self._datapath.reconfigure()
        finally:
            memory.settle()
        return found

    def _prepared(self, snapshot: Snapshot) -> Diff:
        """In a thread: both take their time."""
        import_for(snapshot)
        return diff(self.snapshot, snapshot)

    def put_in_place(self, snapshot: Snapshot, generation: int) -> None:
        """The data path has it."""
        self.snapshot = snapshot
        self.generation = generation
        self.since = self._datapath.service.clock()

    def record(self, outcome: Outcome) -> None:
        """Remember how a reload went."""
        self.last = outcome
        if outcome.diff:
            self.last_change = outcome
        if outcome.is_success:
            self._succeeded += 1
        else:
            self._failed += 1


@dataclass(slots=True, eq=False)
class Reloading:
    """The part `reload`: one request at a time."""

    active: Active
    path: str
    environ: Mapping[str, str]
    clock: Callable[[], float]
    on_outcome: Callable[[Outcome], None]
    """Told of each reload that is final."""
    most_routes: int | None = None
    """A configuration with more is refused."""
    may_begin: asyncio.Event = field(default_factory=already_set)
    """Not while another process is being started with what stands in the file: what is new there is for that one to
    bind. Who asks meanwhile waits."""
    _loader: Loader = field(default_factory=Loader)

    async def run(self, mailbox: Mailbox[Request | Warm]) -> None:
        self._loader = Loader(self.most_routes)
        try:
            async for message in mailbox:
                if isinstance(message, Request):
                    await self._answer(message)
                else:
                    # No process to be had: the load itself will say so, if it is still true by then.
                    with contextlib.suppress(OSError):
                        await self._loader.warm()
        finally:
            await self._loader.close()

    async def _answer(self, request: Request) -> None:
        reply = request.reply
        try:
            outcome = await self.reload(request)
        except BaseException as error:
            task = asyncio.current_task()
            is_ending = task is not None and task.cancelling()
            request.fail(Ending() if is_ending else RuntimeError(f"the reload broke off: {error!r}"))
            raise
        if outcome.is_success or (request.is_final and not self._is_known(request, outcome)):
            self.active.record(outcome)
            self.on_outcome(outcome)
        if reply is not None and not reply.done():
            reply.set_result(outcome)

    def _is_known(self, request: Request, outcome: Outcome) -> bool:
        """The watcher tries again each second while something is lacking, which is told once."""
        last = self.active.last
        is_again = last is not None and last.is_undecided and outcome.is_undecided
        return is_again and request.trigger == "file"

    async def reload(self, request: Request) -> Outcome:
        """Load and, if it is good and new, install."""
        await self.may_begin.wait()
        active, started = self.active, self.clock()
        try:
            snapshot = await self._loader.load(self.path, self.environ)
        except ConfigError as error:
            problems = tuple(str(problem) for problem in error.problems)
            return self._refusal(request, started, problems, error.files, error.digest)
        except LoaderFailed as error:
            refusal = self._refusal(request, started, (str(error),))
            return replace(refusal, is_undecided=True, has_crashed=not error.is_own_lack)
        found = Diff()
        try:
            if snapshot.digest != active.snapshot.digest:
                found = await active.install(snapshot)
        except OSError as error:
            problem = f"{self.path}: {error}"
            refusal = self._refusal(request, started, (problem,), snapshot.files, snapshot.digest)
            return replace(refusal, is_undecided=is_own_lack(error))
        pending = waiting(active.started_with, snapshot)
        now = self.clock()
        report = ReloadReport(
            now,
            now - started,
            active.generation,
            is_success=True,
            routes_added=found.count(Kind.ADDED),
            routes_removed=found.count(Kind.REMOVED),
            routes_changed=found.count(Kind.CHANGED),
            breakers_kept=found.breakers_kept,
            breakers_reset=found.breakers_reset,
        )
        return Outcome(request.trigger, report, found, pending, snapshot.files, snapshot.digest)

    def _refusal(
        self,
        request: Request,
        started: float,
        problems: tuple[str, ...],
        files: tuple[str, ...] = (),
        digest: str = "",
    ) -> Outcome:
        now = self.clock()
        report = ReloadReport(now, now - started, self.active.generation, is_success=False, problems=problems)
        pending = self.active.pending_restart
        return Outcome(request.trigger, report, Diff(), pending, files, digest)


@dataclass(slots=True, eq=False)
class Watching:
    """The part `watch`: looks at the files, and asks for a reload when they have changed and stand still."""

    active: Active
    path: str
    clock: Callable[[], float]
    ask: Callable[[Request | Warm], bool]

    async def run(self, mailbox: Mailbox[Outcome | Look]) -> None:
        """Messages are the outcomes of reloads, whoever asked for them, and that it is worth looking."""
        last = self.active.last
        snapshot = self.active.snapshot
        watch = Watch(self.path, snapshot.files if last is None else last.files or snapshot.files)
        settling = Settling(snapshot.digest)
        if last is not None and not last.is_success:
            settling.refused(last.digest)
        lookout = Lookout(POLL_SECONDS)
        try:
            while True:
                message = await self._next(mailbox, lookout, watch, settling)
                if isinstance(message, Outcome):
                    self._learn(message, watch, settling)
                else:
                    await self._look(watch, settling)
        finally:
            lookout.close()

    async def _next(
        self, mailbox: Mailbox[Outcome | Look], lookout: Lookout, watch: Watch, settling: Settling
    ) -> Outcome | Look | None:
        """None: it is time to look, since a change is to stand still."""
        if settling.is_pending:
            return await mailbox.get(SETTLE_SECONDS / 2)
        lookout.watch(self.path, watch.another().look, settling.seen, partial(mailbox.put, LOOK))
        message = await mailbox.get()
        lookout.rest(self.path)
        return message

    async def _look(self, watch: Watch, settling: Settling) -> None:
        digest = await asyncio.to_thread(watch.look, self.clock())
        if digest is None:
            await asyncio.sleep(POLL_SECONDS)
            return
        was_pending = settling.is_pending
        if settling.saw(digest, self.clock()):
            await self._try(settling)
        elif settling.is_pending and not was_pending:
            self.ask(Warm())

    async def _try(self, settling: Settling) -> None:
        reply: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        is_final = not settling.is_patient(self.clock())
        if not self.ask(Request("file", reply, is_final)):
            return
        try:
            outcome = await reply
        except RuntimeError:  # the other part crashed over it: once more, then it is left alone
            if is_final:
                settling.refused("")
            else:
                settling.tried()
            return
        if outcome.has_crashed:
            settling.crashed(self.clock())
        elif outcome.is_undecided:
            settling.postponed(self.clock())
        elif not outcome.is_success and not is_final:
            settling.tried()

    def _learn(self, outcome: Outcome, watch: Watch, settling: Settling) -> None:
        if outcome.is_undecided:
            return
        if outcome.files:
            watch.include(outcome.files)
        if outcome.is_success:
            settling.taken(outcome.digest)
        else:
            settling.refused(outcome.digest)
