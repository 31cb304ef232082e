"""Where a listener's new work waits while it is overloaded: connections between two requests.

Decides who is next. They are taken up in turn, one request each, so that a client with many pipelined requests gets
no more than another. What clients send meanwhile is read as long as all of it together is small, since that is
cheaper than to leave it: to stop reading and to start again takes three changes of an epoll set, 8 µs of a request's
60. Beyond that it stays in the kernel, and an epoll of the gate's own tells who has sent something, in the order in
which it came, and who has left.

Where those in front have waited for almost as long as clients were seen to be patient, the line is too long for any
of them: then the newest are taken up first, since those in front would be gone by the time of their answer, and the
oldest are refused. Owned by its listener, for one time of overload.
"""

from __future__ import annotations

import contextlib
import select
from abc import ABC, abstractmethod
from collections import deque
from enum import IntEnum
from math import ceil, inf
from typing import TYPE_CHECKING, Final

from mypy_extensions import mypyc_attr, trait

from sidecar.core.contract import NO_SLOTS
from sidecar.core.overload import Refusals

if TYPE_CHECKING:
    from sidecar.transport.link import Link

HELD_BYTES: Final = 1024 * 1024
"""Of requests that wait; beyond it, they are not read."""
EVENTS_A_TURN: Final = 256
"""News that are taken in at once: an end of a connection costs 20 µs."""
LONG_SECONDS: Final = 1.0
"""Who would have to wait longer is refused at once, as long as there is time for refusals."""
UNREAD_COST_SECONDS: Final = 0.00005
"""To take a connection out of the kernel's queue, answer it and close it."""
PATIENT_SHARE: Final = 0.85
"""Of the patience of clients: where those in front have waited for more of it, the newest go first."""
SHORT_SHARE: Final = 0.5
"""A line that takes less of it is first come first served again."""
FORGETTING: Final = 0.995
"""Of the patience that was seen, in each window of 100 ms in which somebody left: half of it is forgotten in 14 s."""
_WATCH: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_GONE: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_SLACK: Final = 64


class Place(IntEnum):
    """Of a connection, as its gate sees it."""

    OUTSIDE = 0
    """It is read; what comes has to wait."""
    WATCHED = 1
    """It is not read, and nothing has come."""
    QUEUED = 2
    """Something has come, or is here already."""
    LET_IN = 3
    """Its next request is taken."""
    REFUSED = 4
    """Its next request is answered no."""


# An enum's own lookup costs 15 to 50 ns each time.
OUTSIDE: Final = Place.OUTSIDE
WATCHED: Final = Place.WATCHED
QUEUED: Final = Place.QUEUED


class Ticket:
    """A place in the line, told from others by what it is, not by what it holds. A tuple would not do: a compiled one
    is copied, and is another one then."""

    __slots__ = ("at", "size")

    def __init__(self, at: float, size: int) -> None:
        self.at = at
        """When it joined the line."""
        self.size = size
        """How many bytes were read of it."""


@mypyc_attr(allow_interpreted_subclasses=True)
@trait
class Waiting(ABC):
    """A connection, as its gate sees it."""

    __slots__ = NO_SLOTS

    link: Link
    place: Place
    """Written by the gate, and by the connection when it comes and when its request begins."""
    ticket: Ticket | None
    """Of its place in the line; written by the gate."""

    @abstractmethod
    def let_in(self, *, is_refused: bool) -> None:
        """Read on: the next request is taken up, or refused."""

    @abstractmethod
    def abort(self) -> None: ...


@mypyc_attr(allow_interpreted_subclasses=True)
class OpenWaiting(Waiting):
    """What a class extends that is not compiled, as in tests: it can't extend a trait."""

    __slots__ = NO_SLOTS


class Gate:
    """One listener's line."""

    def __init__(self, now: float) -> None:
        self.began_at = now
        self.refused_streams = 0
        """Of HTTP/2, which do not wait: each may be asked for again at once."""
        self._poll = select.epoll()
        self._fds: dict[Waiting, int] = {}
        self._by_fd: dict[int, Waiting] = {}
        self._line: deque[tuple[Ticket, Waiting]] = deque()
        """Those whose ticket is another are no longer in it, and are passed over."""
        self._held_bytes = 0
        self._refusals = Refusals(now)
        self._unread = Refusals(now, UNREAD_COST_SECONDS)
        """Of those in the kernel's queue."""
        self.waiting = 0
        """Connections in the line."""
        self.had_to_wait = False
        """Somebody was in the line at the end of a turn since the last `window`."""
        self.let_in = 0
        self._now = now
        self.gone = 0
        """Left while they were in the line."""
        self._rate = inf
        """Taken up in a second, lately."""
        self._before = (0, 0)
        self._window_at = now
        self._patience = 0.0
        """Seconds after which the most patient of those left who did; 0 while nobody has. The most patient one's,
        since who has waited in the kernel's queue before seems to have waited for less."""
        self._front_waited = inf
        """The shortest time that somebody had waited who was taken from the front, since the last `window`."""
        self._is_newest_first = False
        self._too_many = inf
        """A line that is longer takes more than `LONG_SECONDS`."""

    def __repr__(self) -> str:
        return f"<Gate {self.waiting} of {len(self._fds)} wait>"

    @property
    def refused(self) -> int:
        return self._refusals.count + self._unread.count + self.refused_streams

    @property
    def held_bytes(self) -> int:
        """Read of those who wait."""
        return self._held_bytes

    @property
    def is_full(self) -> bool:
        """No more is read of those who wait."""
        return self._held_bytes > HELD_BYTES

    # What connections say

    def watch(self, one: Waiting) -> None:
        """It is between two requests, and not read."""
        fd = self._fds.get(one)
        if fd is not None:
            self._poll.modify(fd, _WATCH)  # which tells anew what has come meanwhile
        elif (fd := one.link.fileno()) >= 0:
            self._fds[one] = fd
            self._by_fd[fd] = one
            self._poll.register(fd, _WATCH)
        one.place = WATCHED

    def queue(self, one: Waiting, now: float, size: int) -> None:
        """Something of its next request has come, of which `size` bytes were read."""
        if self.waiting > self._too_many and self._refusals.take(1, now):
            one.let_in(is_refused=True)
            return
        one.place = QUEUED
        ticket = one.ticket = Ticket(now, size)
        self.waiting += 1
        self._held_bytes += size
        self._line.append((ticket, one))

    def too_many(self, in_kernel: int, now: float) -> int:
        """How many of those who wait in the kernel's queue are to be refused now, since the last of them would have
        to wait for longer than `LONG_SECONDS`: as many as there is time for."""
        excess = in_kernel + self.waiting - self._rate * LONG_SECONDS
        return self._unread.take(ceil(excess), now) if excess > 0 else 0

    def forget(self, one: Waiting) -> None:
        """It has closed, or is somebody else's."""
        fd = self._fds.pop(one, None)
        if fd is not None:
            del self._by_fd[fd]
            with contextlib.suppress(OSError):
                self._poll.unregister(fd)
        ticket = one.ticket
        if one.place is QUEUED and ticket is not None:
            self.waiting -= 1
            self._held_bytes -= ticket.size
            self.gone += 1
            self._patience = max(self._patience, self._now - ticket.at)
        one.place = OUTSIDE
        one.ticket = None

    # What the loop's turns bring

    def turn(self, count: int, now: float) -> None:
        """Hear who has come and who has left, and take up to `count` out of the line."""
        self._now = now
        if self._by_fd:
            self._hear(now)
        if self._is_newest_first and self.waiting > count:
            refusals = self._refusals.take(min(self.waiting - count, count), now)
            self._take(refusals, is_refused=True, is_newest=False)
        self.let_in += self._take(count, is_refused=False, is_newest=self._is_newest_first)
        if self.waiting:
            self.had_to_wait = True
        if len(self._line) > 2 * self.waiting + _SLACK:
            self._line = deque(entry for entry in self._line if entry[1].ticket is entry[0])

    def _hear(self, now: float) -> None:
        for fd, events in self._poll.poll(0, EVENTS_A_TURN):
            one = self._by_fd.get(fd)
            if one is None:
                continue
            if events & _GONE:
                if one.place is WATCHED or one.place is QUEUED:  # of one that is read the loop hears
                    one.abort()
            elif one.place is WATCHED:
                self.queue(one, now, 0)

    def _take(self, count: int, *, is_refused: bool, is_newest: bool) -> int:
        """Up to so many out of the line. Returns how many there were."""
        line, taken = self._line, 0
        while line and taken < count:
            ticket, one = line.pop() if is_newest else line.popleft()
            if one.ticket is ticket:
                taken += 1
                self.waiting -= 1
                self._held_bytes -= ticket.size
                one.ticket = None
                if not is_newest:
                    self._front_waited = min(self._front_waited, self._now - ticket.at)
                one.let_in(is_refused=is_refused)
        return taken

    def window(self, now: float) -> None:
        """Go by what the time since the last call has brought: about 100 ms."""
        seconds, self._window_at = max(now - self._window_at, 0.001), now
        let_in, gone = self.let_in - self._before[0], self.gone - self._before[1]
        self._before = self.let_in, self.gone
        self.had_to_wait = False
        rate = max(let_in, 1) / seconds
        self._rate = rate if self._rate == inf else self._rate + 0.3 * (rate - self._rate)
        self._refusals.costs(seconds_of_a_forward=1 / self._rate)
        if gone:  # while nobody leaves, nothing is known of clients that are less patient
            self._patience *= FORGETTING
        if self._is_newest_first:
            self._is_newest_first = self.waiting > SHORT_SHARE * self._patience * self._rate
        else:
            self._is_newest_first = inf > self._front_waited > PATIENT_SHARE * (self._patience or inf)
        self._front_waited = inf
        self._too_many = inf if self._is_newest_first else self._rate * LONG_SECONDS

    def close(self) -> list[Waiting]:
        """The end of the gate: those who wait, and those whom nobody reads yet."""
        self._poll.close()
        left = [one for ticket, one in self._line if one.ticket is ticket]
        left += [one for one in self._fds if one.place is WATCHED]
        self._fds.clear()
        self._by_fd.clear()
        self._line.clear()
        return left
