"""What systemd is told of a process that it started: ready, about to end, and still turning (sd_notify(3)).

A datagram to the socket that `NOTIFY_SOCKET` names. The watchdog's sign of life is sent by the event loop itself, at
half of the time that `WATCHDOG_USEC` allows: a loop that hangs sends none, and systemd starts the process anew.
Without these variables nothing is done. Where the socket cannot be written to, it is told once, and the service goes
on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping

_LOG = logging.getLogger("sidecar.runtime")


class ServiceManager:
    """Of one process. Called on the event loop, where there is one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._seconds = _watchdog_seconds(environ)
        self._timer: asyncio.TimerHandle | None = None
        self._has_failed = False

    @property
    def seconds(self) -> float:
        """Between two signs of life; 0: nobody waits for one."""
        return self._seconds

    def ready(self) -> None:
        """Every listener is open; from now on the watchdog hears of the loop."""
        self.say_ready()
        if self._seconds:
            self._turn()

    def say_ready(self) -> None:
        """The same in a process without an event loop, which then calls `beat`."""
        self._say("READY=1")

    def beat(self) -> None:
        self._say("WATCHDOG=1")

    def say_main(self, pid: int) -> None:
        """That process is the service from now on; what this one says after it is not heard any more."""
        self._say(f"MAINPID={pid}")

    def stopping(self) -> None:
        """The drain has begun. The loop still has to turn, so the watchdog goes on until `close`."""
        self._say("STOPPING=1")

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        self.beat()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._turn)

    def _say(self, state: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(state.encode(), self._address)
        except OSError as error:
            if not self._has_failed:
                _LOG.warning("NOTIFY_SOCKET: systemd cannot be told %s: %s", state, error.strerror or error)
            self._has_failed = True


def _address(name: str) -> str | None:
    """A path, or with `@` a name without a file (unix(7)); None where there is none to write to."""
    if name.startswith("@"):
        return f"\0{name[1:]}"
    if name and not name.startswith("/"):
        _LOG.warning(
            "NOTIFY_SOCKET: %r is neither a path nor a name with @, so systemd is told nothing", name
        )
        return None
    return name or None


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """Between two signs of life; 0 where nobody waits for one from this process."""
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or pid not in ("", str(os.getpid())):
        return 0.0
    return int(microseconds) / 1_000_000 / 2
