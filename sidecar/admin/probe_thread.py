"""Answers probes where the event loop is late, by a thread of its own.

The loop answers probes as long as it is in time. Where it has not turned for 50 ms after a connection came, that is
taken here: what an orchestrator asks is answered at once, and everything else is handed over to the loop with the
bytes that were read. `/livez` is 200 while the loop has turned within the last 10 s, whatever load there is: an
overload is no reason to be killed, and a loop that hangs is one.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final, Protocol

from sidecar.core.dataclass import dataclass

PATIENCE_SECONDS: Final = 0.05
"""How long the loop may take to its next turn when a connection has come, and how long one that was taken may say
nothing before the loop gets it."""
HURRY_SECONDS: Final = 0.01
"""The same while a listener is overloaded: to answer, the thread waits several times for the interpreter's lock, 5 ms
each."""
HUNG_SECONDS: Final = 10.0
MAX_WAITING: Final = 32
"""Connections here at once; others wait in the kernel's queue."""
_HEAD_BYTES: Final = 8192
_JOIN_SECONDS: Final = 1.0
_REASONS: Final = {200: b"OK", 503: b"Service Unavailable"}

OnLoop = Callable[..., object]
"""Calls its first argument with the others, on the loop. Raises: RuntimeError, if the loop is closed."""
Adopt = Callable[[socket.socket, bytes], None]
"""Takes a connection, and what was read of it. Called on the loop."""


class LoopVitals(Protocol):
    """What the thread asks the process."""

    @property
    def is_started(self) -> bool: ...
    @property
    def is_ready(self) -> bool: ...
    @property
    def is_pressed(self) -> bool:
        """A listener is overloaded."""

    @property
    def turned_at(self) -> float:
        """When the data loop gave its last sign of life, on the monotonic clock."""

    def hung(self, seconds: float, stack: str) -> None:
        """The data loop has not turned for so long. Said once for each time; from the thread."""


@dataclass(slots=True)
class _Taken:
    sock: socket.socket
    until: float
    data: bytes = b""


class ProbeThread:
    """Watches one listening socket. Started on the loop whose life it tells."""

    def __init__(self, bound: socket.socket, vitals: LoopVitals, on_loop: OnLoop, adopt: Adopt) -> None:
        self._bound = bound.dup()
        self._bound.setblocking(False)
        self._vitals = vitals
        self._on_loop = on_loop
        self._adopt = adopt
        self._asked = self._turned = 0
        """How often the loop was asked whether it turns, and the last question that it has answered."""
        self._loop_thread = threading.get_ident()
        self._taken: dict[int, _Taken] = {}
        self._poll = select.poll()
        self._woken, self._wake = socket.socketpair()
        self._is_hung = False
        self._came_at: float | None = None
        """When something came into the kernel's queue that the loop is to take; None while nothing did."""
        self._thread = threading.Thread(target=self._run, name="sidecar-probes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it; what is here and was not answered goes to the loop no more."""
        self._wake.send(b"x")
        self._thread.join(_JOIN_SECONDS)
        for one in self._taken.values():
            one.sock.close()
        for sock in (self._bound, self._woken, self._wake):
            sock.close()

    # The thread

    def _run(self) -> None:
        woken, bound = self._woken.fileno(), self._bound.fileno()
        self._poll.register(woken, select.POLLIN)
        self._poll.register(bound, select.POLLIN)
        while True:
            is_waiting = self._came_at is not None or bool(self._taken)
            ready = {fd for fd, _ in self._poll.poll(int(HURRY_SECONDS * 1e3) if is_waiting else None)}
            if woken in ready:
                return
            now = time.monotonic()
            if bound in ready:
                self._came_at = now
                self._poll.unregister(
                    bound
                )  # it is ready all the time, until somebody has taken what is there
                self._ask_loop()
            elif self._came_at is not None and now - self._came_at >= self._patience():
                self._came_at = None
                self._poll.register(bound, select.POLLIN)
                if self._turned < self._asked:
                    self._accept(now)
            for one in [self._taken[fd] for fd in ready if fd in self._taken]:
                self._read(one)
            for one in [one for one in self._taken.values() if one.until <= now]:
                self._give_away(one)

    def _patience(self) -> float:
        return HURRY_SECONDS if self._vitals.is_pressed else PATIENCE_SECONDS

    def _ask_loop(self) -> None:
        """A turn of it takes what waits in the kernel's queue."""
        self._asked += 1
        with contextlib.suppress(RuntimeError):
            self._on_loop(self._has_turned, self._asked)

    def _has_turned(self, question: int) -> None:
        self._turned = question

    def _accept(self, now: float) -> None:
        while len(self._taken) < MAX_WAITING:
            try:
                sock, _ = self._bound.accept()
            except OSError:  # the loop was in time, or there is no descriptor: then it waits
                return
            sock.setblocking(False)
            one = self._taken[sock.fileno()] = _Taken(sock, now + PATIENCE_SECONDS)
            self._poll.register(sock.fileno(), select.POLLIN)
            self._read(one)

    def _read(self, one: _Taken) -> None:
        try:
            data = one.sock.recv(_HEAD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._let_go(one)
            one.sock.close()
            return
        one.data += data
        path = probe_path(one.data)
        if path is not None:
            self._let_go(one)
            self._answer(one.sock, path)
        elif b"\r\n\r\n" in one.data or len(one.data) >= _HEAD_BYTES:
            self._give_away(one)

    def _answer(self, sock: socket.socket, path: bytes) -> None:
        status, text = self._verdict(path)
        body = text.encode() + b"\n"
        head = (
            b"HTTP/1.1 %d %b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # it has left
            sock.send(head % (status, _REASONS[status], len(body)) + body)
        sock.close()

    def _verdict(self, path: bytes) -> tuple[int, str]:
        """Status and text."""
        vitals = self._vitals
        seconds = time.monotonic() - vitals.turned_at
        if seconds < HUNG_SECONDS:
            self._is_hung = False
        elif path != b"/startupz":
            return 503, self._tell_hung(seconds)
        if path == b"/readyz" and not vitals.is_ready:
            return 503, "draining or not started"
        if path == b"/startupz" and not vitals.is_started:
            return 503, "not started"
        return 200, "ok"

    def _tell_hung(self, seconds: float) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        stack = traceback.extract_stack(frame)
        if not self._is_hung:
            self._is_hung = True
            self._vitals.hung(seconds, "".join(stack.format()))
        last = stack[-1]
        return f"the data loop has not turned for {seconds:.0f} s; it is in {last.name}, line {last.lineno}"

    def _give_away(self, one: _Taken) -> None:
        """To the loop, which knows what to do with it."""
        self._let_go(one)
        try:
            self._on_loop(self._adopt, one.sock, one.data)
        except RuntimeError:  # the loop is closed
            one.sock.close()

    def _let_go(self, one: _Taken) -> None:
        fd = one.sock.fileno()
        del self._taken[fd]
        self._poll.unregister(fd)


def probe_path(data: bytes) -> bytes | None:
    """What a whole request asks for, if it is a plain GET of a probe; None for everything else."""
    if not data.endswith(b"\r\n\r\n"):
        return None
    method, _, rest = data.partition(b" ")
    target, _, version = rest.partition(b"\r\n")[0].partition(b" ")
    path = target.partition(b"?")[0]
    is_probe = method == b"GET" and version in (b"HTTP/1.1", b"HTTP/1.0")
    has_body = b"\r\ncontent-length:" in data.lower() or b"\r\ntransfer-encoding:" in data.lower()
    return path if is_probe and not has_body and path in (b"/livez", b"/readyz", b"/startupz") else None
