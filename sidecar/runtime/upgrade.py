"""An upgrade in place: a process starts the program anew, leaves it every listening socket, and ends when that is
ready.

The successor runs the same command, in whatever version stands there by now. It inherits the sockets as open files,
so nothing is ever closed that a client may connect to, and a pipe by which it says that it serves. If it ends before
that, or takes too long, nothing has changed. Only starting and hearing is here; who has which sockets, and what the
end is like, `workers/supervisor.py` and `upgrading.py` know.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
from collections.abc import MutableMapping, Sequence
from typing import Final

from sidecar.telemetry.process_log import kind
from sidecar.transport.given import GIVEN

_LOG = logging.getLogger("sidecar.runtime")
_UPGRADE: Final = kind("process.upgrade")
VARIABLE: Final = "SIDECAR_PREDECESSOR"
"""In a successor's environment: its open files, the pipe first."""
READY_SECONDS: Final = 60.0
"""What has not said that it serves by then is given up."""
_READY: Final = b"ready"
_NO_UPGRADE: Final = (
    "no upgrade in place: this is process 1 of its container, which ends with it; roll the pods out instead"
)


class NoUpgrade(Exception):
    """It cannot begin. The text says why, and what to do."""


class Predecessor:
    """Who has started this process, if that was for an upgrade; else nobody, and nothing is done."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take the sockets over. The variable is of this process alone, and taken away.

        Raises:
            OSError: there are no such files; the text says what to do.
        """
        self._pipe = -1
        told = environ.pop(VARIABLE, "")
        if told:
            try:
                self._pipe, *files = map(_lowest, map(int, told.split(",")))
                GIVEN.adopt(files)
            except (OSError, ValueError) as error:
                raise OSError(
                    f"{VARIABLE}: {error}; the process to replace sets it, nobody else should"
                ) from error

    @property
    def is_there(self) -> bool:
        """It has sockets that are this process's too, and has not said that it leaves them to it."""
        return self._pipe >= 0

    def fileno(self) -> int:
        """In error (poll(2): POLLERR) once it hears no more: it leaves everything, or has ended."""
        return self._pipe

    def ready(self) -> None:
        """Everything serves: the predecessor may end. What it has left and nobody asked for is let go."""
        GIVEN.close()
        if self._pipe >= 0:
            try:
                os.write(self._pipe, _READY)
            except BrokenPipeError:  # it has ended by itself
                self.left()

    def left(self) -> None:
        """The sockets are this process's own. Not before it has been seen that the predecessor leaves them: if this
        process dies in between, that one goes on."""
        GIVEN.keep()
        self.leave()

    def leave(self) -> None:
        """It is not this process that is told so."""
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            os.close(pipe)


def _lowest(file: int) -> int:
    """The same open file, not inherited, by a lower number if one is free: a predecessor gives numbers above all of
    its own, which would grow from one upgrade to the next, up to the limit of open files."""
    os.set_inheritable(file, False)
    free = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 0)
    os.close(max(file, free))
    return min(file, free)


class Successor:
    """The process that is to take the place of this one."""

    def __init__(self, sockets: Sequence[int], now: float) -> None:
        """Start it. `sockets`: all that listen; they stay open here as well. `now`: monotonic seconds.

        Raises:
            NoUpgrade: this process may not end.
            OSError: no other process can be started.
        """
        if os.getpid() == 1:
            raise NoUpgrade(_NO_UPGRADE)
        self._heard, pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        ours = [pipe, *sockets]
        first = max([*ours, self._heard]) + 1
        theirs = [first + number for number in range(len(ours))]
        environ = {**os.environ, VARIABLE: ",".join(map(str, theirs))}
        environ.pop(
            "WATCHDOG_PID", None
        )  # systemd's watchdog is for whoever is the main process (sd_notify(3))
        command = [sys.executable, *sys.orig_argv[1:]]
        actions = [(os.POSIX_SPAWN_DUP2, file, as_file) for file, as_file in zip(ours, theirs, strict=True)]
        try:
            self.pid = os.posix_spawn(sys.executable, command, environ, file_actions=actions, setsigmask=[])
        except OSError:
            os.close(self._heard)
            raise
        finally:
            os.close(pipe)
        self.due = now + READY_SECONDS
        """Then it is given up."""

    def __repr__(self) -> str:
        return f"<Successor pid={self.pid}>"

    def fileno(self) -> int:
        """Readable when it has said that it serves, and when it will never say so."""
        return self._heard

    def is_ready(self) -> bool | None:
        """Whether it serves; None: it has not said anything yet."""
        try:
            return os.read(self._heard, len(_READY)) == _READY
        except BlockingIOError:
            return None

    def is_alive(self) -> bool:
        """It has not ended since it said so."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def give_up(self) -> str:
        """End it, if it has not ended. How it did, in words."""
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def has_ended(self) -> bool:
        """Whether it has, once it was told to; then its number may be another process's."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True

    def close(self) -> None:
        """Hear no more of it."""
        os.close(self._heard)


class Succession:
    """Who is to take over: one process at a time, or nobody."""

    def __init__(self, hindrance: str = "") -> None:
        """`hindrance`: why nobody may take over, and what to do instead; empty: nothing is against it."""
        self._hindrance = hindrance
        self.successor: Successor | None = None
        """Who has not said yet whether he serves."""
        self._ending: Successor | None = None
        """Who was told to end with this process."""
        self.is_over = False
        """Another process serves in this one's place."""

    def begin(self, sockets: Sequence[int], now: float) -> bool:
        """Start the program anew, unless that is under way; what hinders it is told. Whether somebody was started."""
        if self.successor is not None or self.is_over:
            return False
        if self._hindrance:
            _LOG.error("no upgrade in place: %s", self._hindrance, extra=_UPGRADE)
            return False
        try:
            one = self.successor = Successor(sockets, now)
        except (NoUpgrade, OSError) as error:
            _LOG.error("%s", error, extra=_UPGRADE)
            return False
        _LOG.info("upgrade in place: process %d is to take over", one.pid, extra=_UPGRADE)
        return True

    def look(self, now: float) -> int | None:
        """See what the successor says, or that its time is over. Returns its pid once, when it has taken over."""
        one = self.successor
        if one is None:
            return None
        is_ready = one.is_ready()
        if is_ready is None and now < one.due:
            return None
        self.successor = None
        one.close()
        if is_ready and one.is_alive():
            self.is_over = True
            _LOG.info("upgrade in place: process %d has taken over", one.pid, extra=_UPGRADE)
            return one.pid
        told = one.give_up()
        _LOG.error(
            "no upgrade in place: the new process did not serve (%s); this one goes on", told, extra=_UPGRADE
        )
        return None

    def end(self) -> None:
        """This process was told to end: so is who was to take over. `has_ended` is to be asked then."""
        one, self.successor = self.successor, None
        if one is not None:
            os.kill(one.pid, signal.SIGTERM)
            one.close()
            self._ending = one

    def has_ended(self) -> bool:
        """Nobody is left of those who were told to end: a process that hangs would keep the sockets open, with nobody
        who accepts, and nobody who ends it."""
        if self._ending is not None and self._ending.has_ended():
            self._ending = None
        return self._ending is None

    def kill(self) -> None:
        """End whoever was told so and has not ended. `has_ended` is to be asked again."""
        if not self.has_ended():
            assert self._ending is not None
            _LOG.error("process %d did not end: killed", self._ending.pid, extra=_UPGRADE)
            os.kill(self._ending.pid, signal.SIGKILL)
