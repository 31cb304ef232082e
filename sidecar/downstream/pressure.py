"""Overload of a process: which listeners' new work has to wait, and how much of it is taken up in a turn of the loop.

Hears of each turn that is measured. Inbound listeners come first, the one with most under way before the others: what
the app itself asks for belongs to requests that were taken already. Owned by the data path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from sidecar.core.contract import SLOTTED
from sidecar.core.overload import LATE_SECONDS, Change, LeastTurn
from sidecar.core.path_dataclass import dataclass
from sidecar.core.snapshot import Direction

if TYPE_CHECKING:
    from sidecar.downstream.listener import ListenerSocket
    from sidecar.forwarding.service import Service

REQUESTS_A_TURN: Final = 50
"""Taken up at most, for all listeners that are overloaded: a turn of 2 to 4 ms. More of them answer no more requests
in a second, and probes and admin API wait for several turns."""
NEXT_SECONDS: Final = 1.0
"""Where holding one listener back did not help for this long, the next one is held back too."""
CROWDED_SECONDS: Final = 0.01
"""What a turn may take of new work, where many are under way."""
WORTH_SHARE: Final = 0.1
"""A listener with less than this share of all that is under way is not what the loop cannot keep up with."""


@dataclass(frozen=True, **SLOTTED)
class Told:
    """A listener's overload has begun or ended: for the log."""

    listener: str
    change: Change
    is_full: bool
    """`limits.max_requests` were under way; otherwise the loop could not keep up."""
    least_turn_seconds: float
    in_flight: int
    seconds: float = 0.0
    """How long it lasted; 0 at the beginning."""
    let_in: int = 0
    refused: int = 0
    gone: int = 0
    throttled_turns: int = 0


class Pressure:
    """The overload of one process."""

    def __init__(self, service: Service, sockets: Callable[[], Iterable[ListenerSocket]]) -> None:
        self._service = service
        self._sockets = sockets
        self._least = LeastTurn()
        self._last_least = 0.0
        self._throttled_before = 0
        self._shut: list[ListenerSocket] = []
        self._told: list[ListenerSocket] = []
        """Those of them whose clients had to wait for longer than a window: a burst is no news."""
        self.tell: Callable[[Told], None] = lambda _told: None
        service.shut.filled = self.filled
        service.shut.crowded = self.crowded
        service.sweep.pace.heard = self.turned

    def __repr__(self) -> str:
        return f"<Pressure on {', '.join(one.name for one in self._shut) or 'nobody'}>"

    def turned(self, seconds: float, now: float) -> bool:
        """A turn of the loop has ended (`Pace.heard`)."""
        least = self._least.add(seconds, now)
        if least is not None:
            self._window(least, now)
        for socket in self._shut:
            socket.take_up(self._count(socket), now)
        return bool(self._shut)

    def crowded(self, name: str, now: float) -> None:
        """Many are under way: where this very turn has lasted long, the rest of what it brings waits for the next
        ones.

        So a thousand connections that send all at once do not hold the loop, and what follows finds it measured.
        """
        pace = self._service.sweep.pace
        if pace.running_seconds(now) > CROWDED_SECONDS:
            self._begin_named(name, now)
        pace.look_closely(now)

    def filled(self, name: str) -> None:
        """As many requests are under way as may be: what this listener's clients send next has to wait."""
        self._begin_named(name, self._service.clock())

    def _begin_named(self, name: str, now: float) -> None:
        if name in self._service.shut.pressed:
            return
        for socket in self._sockets():
            if socket.name == name:
                self._begin(socket, now)
        self._service.sweep.pace.look_closely(now)

    def _count(self, socket: ListenerSocket) -> int:
        """How many requests this one may take up now."""
        count = max(1, int(REQUESTS_A_TURN * socket.overload.admission) // len(self._shut))
        if socket.policy.direction is Direction.INBOUND:
            count = min(count, max(0, self._service.max_requests - len(self._service.exchanges)))
        return count

    # Each 100 ms

    def _window(self, least: float, now: float) -> None:
        self._last_least = least
        if least > LATE_SECONDS and all(now - one.overload.began > NEXT_SECONDS for one in self._shut):
            socket = self._heaviest()
            if socket is not None:
                self._begin(socket, now)
        is_full = len(self._service.exchanges) >= self._service.max_requests
        for socket in list(self._shut):
            is_waiting = is_full or socket.has_waiting
            if is_waiting and socket not in self._told:
                self._told.append(socket)
                self._say(socket, Change.BEGAN, is_full=is_full)
            change = socket.overload.window(least, now, is_anybody_waiting=is_waiting)
            socket.window(now)
            if change is Change.ENDED:
                self._end(socket, now)

    def _heaviest(self) -> ListenerSocket | None:
        """Who is to be held back next: inbound before outbound, most under way before less."""
        loads = Counter(one.request.listener for one in self._service.exchanges)
        least = WORTH_SHARE * loads.total()
        open_ones = [one for one in self._sockets() if one.gate is None and loads[one.name] >= least]
        return max(
            open_ones,
            key=lambda one: (one.policy.direction is Direction.INBOUND, loads[one.name]),
            default=None,
        )

    def _begin(self, socket: ListenerSocket, now: float) -> None:
        if socket.overload.begin(now) is None:
            return
        self._shut.append(socket)
        self._throttled_before = self._service.sweep.pace.throttled_turns
        socket.shut(now)
        self._service.shut.press(frozenset(one.name for one in self._shut))

    def _end(self, socket: ListenerSocket, now: float) -> None:
        self._shut.remove(socket)
        self._service.shut.press(frozenset(one.name for one in self._shut))
        if socket in self._told:
            self._told.remove(socket)
            self._say(socket, Change.ENDED, is_full=False, seconds=now - socket.overload.began)
        socket.open()

    def _say(self, socket: ListenerSocket, change: Change, *, is_full: bool, seconds: float = 0.0) -> None:
        gate = socket.gate
        if gate is None:  # the listener has closed meanwhile
            return
        self.tell(
            Told(
                socket.name,
                change,
                is_full,
                self._last_least,
                len(self._service.exchanges),
                seconds,
                gate.let_in,
                gate.refused,
                gate.gone,
                self._service.sweep.pace.throttled_turns - self._throttled_before,
            )
        )
