"""The first process of a pod with several: binds, forks, waits, passes signals on. No event loop, no threads.

Who dies is started again after a back-off, and a neighbour takes from its sockets until then. Who dies too often, or
cannot start at all, ends everything: the others finish what is under way, and the exit code is 1. It knows nothing of
traffic and configuration: what a child does is `worker_process.py` and `control_process.py`.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sidecar.runtime.service_manager import ServiceManager
from sidecar.runtime.upgrade import Predecessor, Succession
from sidecar.runtime.workers.child import CONTROL, Child
from sidecar.runtime.workers.inherited import Inherited
from sidecar.runtime.workers.lifeline import Lifeline, LifelineCut, LifelineFull
from sidecar.runtime.workers.orders import (
    Adopt,
    Answered,
    BindThese,
    Configured,
    Connect,
    Died,
    Drain,
    End,
    GoOn,
    HandOver,
    KeepSockets,
    Kill,
    Leave,
    Listening,
    LogLevel,
    NewSockets,
    Order,
    Quit,
    Reload,
    Remember,
    Serving,
)
from sidecar.telemetry.process_log import kind

_LOG = logging.getLogger("sidecar.runtime")
FAILED, FORCED = 1, 1
_CRASHED: Final = 70
"""Of a child that ended by an exception (sysexits.h, EX_SOFTWARE)."""
GRACE_SECONDS: Final = 10.0
"""Beyond its drain, a child has so long to end."""
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)
MOST_MESSAGES: Final = 64
"""Of one child, between two looks at the others."""

RunChild = Callable[[int, Inherited, Lifeline], int]
"""The whole life of a child with this number: its exit code."""


class Supervisor:
    """One pod's first process."""

    def __init__(
        self,
        inherited: Inherited,
        run_child: RunChild,
        drain_seconds: float,
        predecessor: Predecessor,
        set_log_level: Callable[[str], None],
    ) -> None:
        """`drain_seconds`: what a drain may take in all, by the configuration of the start. `predecessor` is told
        when all serve. `set_log_level`: of this process's own lines."""
        self._inherited = inherited
        self._run_child = run_child
        self._set_log_level = set_log_level
        self._drain_seconds = drain_seconds
        self._children = {number: Child(number) for number in range(inherited.count + 1)}
        self._adopters: dict[int, int] = {}
        """Who takes for whom."""
        self._failure = ""
        self._put_off = ""
        """The failure that ends it if its successor does not serve."""
        self._signal: str | None = None
        """The name of the last one that asked for the end."""
        self._is_ready = False
        """All children have served once."""
        self._predecessor = predecessor
        self._succession = Succession(inherited.sockets.hindrance)
        self._ends_at: float | None = None
        """When what is left is killed; None: nothing ends yet."""
        self._draining_since = 0.0
        """Of use once something ends."""
        self._manager = ServiceManager(os.environ)
        self._beats_at: float | None = None
        """When systemd's watchdog is to hear of this loop, which hears of all that is wrong; None: before it is
        ready, or nobody waits for that."""
        self._wake_in, self._wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # Its life

    def run(self) -> int:
        """Serve until told to end. The exit code: 0 after a drain, 1 if a child could not live or was cut."""
        for one in SIGNALS:
            signal.signal(one, lambda *_: None)  # the number goes through the pipe
        signal.set_wakeup_fd(self._wake_out)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        began = time.monotonic()
        while not self._is_over():
            now = time.monotonic()
            self._start_due(now)
            self._beat(now)
            self._wait(now)
            self._reap()
        self._tell_end(began, time.monotonic())
        return FAILED if self._failure else 0

    def _tell_end(self, began: float, now: float) -> None:
        seconds = now - began
        fields = {
            "pid": os.getpid(),
            "signal": self._signal,
            "uptime_seconds": round(seconds, 3),
            "drain_seconds": round(now - self._draining_since, 3),
        }
        level = logging.ERROR if self._failure else logging.INFO
        meant = "another process serves in its place" if self._succession.is_over else "as it was asked to"
        why = self._failure or meant
        _LOG.log(level, "ended after %.0f s: %s", seconds, why, extra=kind("process.ended", **fields))

    def _is_over(self) -> bool:
        """Nobody is left, and nobody is to come."""
        is_alone = not any(child.pid for child in self._children.values())
        return self._ends_at is not None and is_alone and self._succession.has_ended()

    def _wait(self, now: float) -> None:
        """Until something happens or somebody is due."""
        poll = select.poll()
        poll.register(self._wake_in, select.POLLIN)
        by_file = {}
        for child in self._children.values():
            if child.lifeline is not None:
                by_file[child.lifeline.fileno()] = child
                poll.register(child.lifeline.fileno(), select.POLLIN)
        if self._succession.successor is not None:
            poll.register(self._succession.successor.fileno(), select.POLLIN)
        if self._predecessor.is_there:
            poll.register(self._predecessor.fileno(), 0)
        for file, _ in poll.poll(self._patience(now)):
            if file == self._wake_in:
                for number in os.read(self._wake_in, 64):
                    self._signalled(number)
            elif file in by_file:
                self._hear(by_file[file])
            elif file == self._predecessor.fileno():
                self._predecessor.left()
        self._look_at_successor()
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            self._cut()

    def _look_at_successor(self) -> None:
        was_awaited = self._succession.successor is not None
        pid = self._succession.look(time.monotonic())
        if pid is not None:
            self._manager.say_main(pid)
            self._end(is_urgent=True)
        elif was_awaited and self._succession.successor is None:
            self._inherited.crossing.leave(is_on=False)
            self._inherited.keep_of_control(())
            self._tell(self._children[CONTROL], GoOn())
            if self._put_off:
                self._fail(self._put_off)

    def _patience(self, now: float) -> int | None:
        """Milliseconds until the next thing that nobody will tell of."""
        times = [child.due for child in self._children.values() if child.due is not None]
        times += [at for at in (self._ends_at, self._beats_at) if at is not None]
        times += [] if self._succession.successor is None else [self._succession.successor.due]
        return max(0, round((min(times) - now) * 1000) + 1) if times else None

    # Children

    def _start_due(self, now: float) -> None:
        for child in self._children.values():
            if child.due is not None and child.due <= now and self._ends_at is None:
                self._start(child)

    def _start(self, child: Child) -> None:
        ours, theirs = Lifeline.pair()
        with _no_signals():
            try:
                pid = os.fork()
            except OSError as error:  # of processes or memory there are no more at present
                ours.close()
                theirs.close()
                self._again_or_end(child, f"it could not be forked: {error}", time.monotonic())
                return
            if not pid:
                self._be(child, ours, theirs)
        theirs.close()
        child.started(pid, ours, time.monotonic())
        if child.lives > 1:
            fields = {"child": child.name, "pid": pid, "restarts": child.lives - 1}
            _LOG.info("%s is started again", child.name, extra=kind("process.child_started", **fields))
        self._connect_all(child)

    def _be(self, child: Child, ours: Lifeline, theirs: Lifeline) -> None:
        """In the child: live, and never come back from here."""
        code = _CRASHED
        try:
            signal.set_wakeup_fd(-1)
            for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
                signal.signal(one, signal.SIG_IGN)  # only the supervisor is told, and tells
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            ours.close()
            os.close(self._wake_in)
            os.close(self._wake_out)
            for other in self._children.values():
                if other.lifeline is not None:
                    other.lifeline.close()
            code = self._run_child(child.number, self._inherited, theirs)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _connect_all(self, child: Child) -> None:
        """Give it its channels: control has one with each worker."""
        control = self._children[CONTROL]
        for worker in self._children.values():
            if worker is not control and worker.pid and control.pid and child in (worker, control):
                ends = socket.socketpair()
                with ends[0], ends[1]:
                    self._tell(
                        control, Connect(worker.number, worker.pid, worker.lives - 1), (ends[0].fileno(),)
                    )
                    self._tell(worker, Connect(CONTROL, control.pid), (ends[1].fileno(),))

    def _reap(self) -> None:
        for child in self._children.values():
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._gone(child, status)

    def _gone(self, child: Child, status: int) -> None:
        pid, now = child.pid, time.monotonic()
        told = child.ended(status, now)
        if child.number != CONTROL:
            self._inherited.crossing.bury(child.number - 1, now)
        if self._ends_at is not None:
            self._may_end_control()
            if os.waitstatus_to_exitcode(status):
                self._failure = self._failure or f"{child.name}: {told}"
        else:
            self._again_or_end(child, told, now, pid)
        self._adopters.pop(child.number, None)  # who has it already looks again: its sockets may listen again
        self._share_out()

    def _again_or_end(self, child: Child, told: str, now: float, pid: int = 0) -> None:
        """It is not there: when it is started again, or that all end. `pid` 0: it was not even born."""
        wait = child.restarts.backoff(now)
        fields = {"child": child.name, "pid": pid}
        _LOG.error("%s (pid %d): %s", child.name, pid, told, extra=kind("process.child_died", **fields))
        if not child.has_served:
            self._fail(f"{child.name} could not start: {told}")
        elif wait is None:
            self._fail(f"{child.name} died {child.restarts.told()}, the last time: {told}")
        else:
            child.due = now + wait
            control = self._children[CONTROL]
            self._tell(control, Died(child.name, child.number, pid, told, child.lives))

    def _fail(self, why: str) -> None:
        """End all. While a successor is awaited, what is left of the pod goes on: it may be what mends this."""
        if self._succession.successor is not None:
            _LOG.error("%s; who is to take over has time to", why, extra=kind("process.upgrade"))
            self._put_off = why
            return
        _LOG.critical("%s", why, extra=kind("process.failed"))
        self._failure = why
        self._end(is_urgent=True)

    def _share_out(self) -> None:
        """Who takes from the sockets of those that are not there: the next that is. In a drain too, as one that was
        killed has ended none of its own."""
        count = self._inherited.count
        for number in range(1, count + 1):
            after = [(number + step - 1) % count + 1 for step in range(1, count)]
            is_there = self._children[number].is_serving
            taker = None if is_there else next((one for one in after if self._children[one].is_serving), None)
            before = self._adopters.get(number)
            if taker == before:
                continue
            if before is not None:
                del self._adopters[number]
                self._tell(self._children[before], Leave(number))
            if taker is not None:
                self._adopters[number] = taker
                self._tell(self._children[taker], Adopt(number))

    # What is said

    def _tell(self, child: Child, order: Order, files: tuple[int, ...] = ()) -> None:
        if child.lifeline is None:
            return
        try:
            child.lifeline.send(order, files)
        except LifelineFull as full:
            child.kill(f"it does not listen ({full})")
        except LifelineCut:
            pass  # it ends, and is reaped

    def _hear(self, child: Child) -> None:
        for _ in range(MOST_MESSAGES):
            if child.lifeline is None:
                return
            try:
                received = child.lifeline.receive()
            except LifelineCut:  # it has gone, and is reaped
                child.lifeline.close()
                child.lifeline = None
                return
            if received is None:
                return
            self._heard(child, *received)

    def _heard(self, child: Child, order: Order, files: list[int]) -> None:
        match order:
            case Serving():
                child.is_serving = child.has_served = True
                self._share_out()
                self._say_ready()
            case BindThese():
                self._tell(child, Answered(self._bind(order)))
            case KeepSockets():
                self._inherited.sockets.keep(order.identities)
                for worker in self._workers():
                    self._tell(worker, order)
            case Configured():
                self._inherited.configured(order.generation, files.pop())
                self._drain_seconds = order.drain_seconds
            case Remember():
                self._inherited.remember(files.pop())
            case LogLevel():
                self._inherited.log_level = order.name
                self._set_log_level(order.name)
            case Listening():
                self._start_successor(files)
            case Quit():
                self._end(is_urgent=False)
            case Kill(number, pid) if self._children[number].pid == pid and self._may_replace(number):
                self._children[number].kill("it has not said anything for too long")
        for file in files:
            os.close(file)

    def _may_replace(self, number: int) -> bool:
        """Of a pod that ends, workers have things under way, and nobody would come in control's place."""
        return number != CONTROL or self._ends_at is None

    def _say_ready(self) -> None:
        """Once, when all have come. Of a pod that is about to end, nobody may rely on it: whom it was to replace goes
        on."""
        if self._is_ready or self._ends_at is not None:
            return
        if not all(child.has_served for child in self._children.values()):
            return
        self._is_ready = self._inherited.has_served = True
        self._manager.say_ready()
        self._predecessor.ready()
        if self._manager.seconds:
            self._beats_at = time.monotonic()

    def _beat(self, now: float) -> None:
        if self._beats_at is not None and now >= self._beats_at:
            self._beats_at = now + self._manager.seconds
            self._manager.beat()

    def _workers(self) -> Iterator[Child]:
        return (child for child in self._children.values() if child.number != CONTROL)

    def _bind(self, order: BindThese) -> str:
        """Bind all or none, and let all children have them. The problem, if there is one."""
        sockets, new = self._inherited.sockets, []
        had = set(sockets.identities())
        try:
            new = [sockets.bind(address, key) for address, key in order.addresses]
        except OSError as error:
            sockets.keep(had)
            return str(error)
        for one in new:
            files = tuple(bound.fileno() for bound in sockets.all_of(one))
            for child in self._children.values():
                self._tell(child, NewSockets(one), files)
        return ""

    # Another one takes over

    def _upgrade(self) -> None:
        """SIGUSR2: control has sockets as well, so it is asked first."""
        if not self._may_upgrade():
            return
        if self._children[CONTROL].is_serving:
            self._tell(self._children[CONTROL], HandOver())
        else:
            told = "no upgrade in place: control is not there; try again in a moment"
            _LOG.error(told, extra=kind("process.upgrade"))

    def _may_upgrade(self) -> bool:
        """It serves, and is not about to end."""
        return self._is_ready and self._ends_at is None

    def _start_successor(self, files: list[int]) -> None:
        """With all sockets that there are; `files` are those of control."""
        if self._may_upgrade():
            sockets = self._inherited.sockets
            own = [each.fileno() for one in sockets.identities() for each in sockets.all_of(one)]
            if self._succession.begin([*own, *files], time.monotonic()):
                self._inherited.crossing.leave(is_on=True)
                self._inherited.keep_of_control(files)
            elif self._succession.successor is None:
                self._tell(self._children[CONTROL], GoOn())

    # The end

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._tell(self._children[CONTROL], Reload())
        elif number == signal.SIGUSR2:
            self._upgrade()
        elif number in (signal.SIGTERM, signal.SIGINT):
            if self._signal is not None:
                self._failure = (
                    self._failure or "ended at once by a second signal: what was under way was cut"
                )
                self._cut()
            self._signal = signal.Signals(number).name
            self._end(is_urgent=number == signal.SIGINT)

    def _end(self, *, is_urgent: bool) -> None:
        """Let all finish; said again with `is_urgent`, the delay is left out."""
        if self._ends_at is not None and not is_urgent:
            return  # control says so too, once it was told
        if self._ends_at is None:
            # Before it is ready, and once it was replaced, it is not the service that systemd knows.
            if self._is_ready and not self._succession.is_over:
                self._manager.stopping()
            self._end_successor()
            self._draining_since = time.monotonic()
            self._ends_at = self._draining_since + self._drain_seconds + GRACE_SECONDS
            _LOG.info("all finish what is under way", extra=kind("process.draining", signal=self._signal))
        for child in self._children.values():
            child.due = None
            self._tell(child, Drain(is_urgent, self._signal, self._succession.is_over))
        self._may_end_control()

    def _end_successor(self) -> None:
        if self._succession.successor is not None:
            self._succession.end()
            self._inherited.crossing.leave(is_on=False)

    def _may_end_control(self) -> None:
        if not any(worker.pid for worker in self._workers()):
            self._tell(self._children[CONTROL], End())

    def _cut(self) -> None:
        self._ends_at = time.monotonic() + GRACE_SECONDS
        self._succession.kill()
        for child in self._children.values():
            child.kill("it had to end")


@contextmanager
def _no_signals() -> Iterator[None]:
    """A child must not run handlers that are its parent's."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
