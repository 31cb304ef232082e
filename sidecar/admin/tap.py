"""`GET /tap`: requests as they end, one event each, to a few readers who say which ones they want to see.

While nobody reads, the data path knows nothing of it: the observer that it reports to is then the usual one alone.
What is shown to a reader has a pace and a bound; what is beyond them is counted and told to it as an event `lost`.
Nothing is kept that a log line would not have, and the query of a request is left out: it is where secrets are. Owned
by the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sidecar.admin.answers import Refused
from sidecar.admin.events import lost_event
from sidecar.admin.stream import HEARTBEAT_SECONDS, Stream
from sidecar.core.checked import Checked
from sidecar.core.dataclass import dataclass
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.finished import FinishedExchange
from sidecar.core.mirrored import CopyOutcome, Mirrored
from sidecar.core.observe import Notice, Observe, ObservedExchange
from sidecar.core.transition import State, Transition
from sidecar.serving.message import Request

MAX_TAPS: Final = 4
CAPACITY: Final = 512
"""Requests that a reader may be behind; the oldest are lost first."""
_BATCH: Final = 64
_PAUSE_SECONDS: Final = 0.1
"""Between two batches: 640 requests a second are shown."""
_NOT_CLOSED: Final = frozenset({State.OPEN, State.HALF_OPEN, State.FORCED_OPEN})

Words = Callable[[FinishedExchange], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which requests a reader wants to see: those for which all of this is so."""

    route: str | None = None
    is_open: bool = False
    """Their breaker was not closed."""
    slow_seconds: float = 0.0
    """They took at least so long."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Lower-case name and exact value of fields that the request has."""

    def takes(self, exchange: ObservedExchange) -> bool:
        if self.route is not None and exchange.route_name != self.route:
            return False
        if self.is_open and exchange.breaker_state not in _NOT_CLOSED:
            return False
        if exchange.ended - exchange.started < self.slow_seconds:
            return False
        lookup = exchange.request.lookup
        return all(lookup.get(name) == value for name, value in self.headers)


class Taps:
    """Who reads, and the observer that shows them what ends."""

    def __init__(self, words: Words) -> None:
        """`words`: a request as JSON."""
        self.words = words
        self.changed: Callable[[], None] = lambda: None
        """Called when the first reader comes and when the last one has gone; set by `runtime/`."""
        self.readers: set[Tap] = set()
        self.count = 0
        """Readers so far."""
        self.lost = 0
        """Requests that a reader missed, over all readers."""
        self.refused = 0
        """Readers that there was no room for."""

    def observing(self, observe: Observe) -> Observe:
        """`observe`, with the readers beside it where there are any."""
        return _Tapped(observe, self) if self.readers else observe

    async def serve(self, request: Request, wanted: Wanted) -> None:
        """Show what is wanted until the client goes or `close`.

        Raises:
            Refused: there are too many.
        """
        self._let_go()
        if len(self.readers) >= MAX_TAPS:
            self.refused += 1
            headers = {"Retry-After": f"{HEARTBEAT_SECONDS:.0f}"}
            raise Refused(503, f"{MAX_TAPS} clients tap already", headers=headers)
        stream = Stream(request)
        tap = Tap(self, stream, wanted)
        self.readers.add(tap)
        self.changed()
        try:
            with contextlib.suppress(TimeoutError):
                await stream.serve(tap)
        finally:
            self.readers.discard(tap)
            self.changed()

    def close(self) -> None:
        """Let every reader end."""
        for tap in self.readers:
            tap.end()

    def _let_go(self) -> None:
        """Those whose clients have left are no readers any more, whatever they wait for."""
        for tap in [one for one in self.readers if one.stream is not None and one.stream.is_gone]:
            tap.end()
            self.readers.discard(tap)


class Tap:
    """One reader: what it wants to see, and what it has not been sent yet."""

    pause_seconds = _PAUSE_SECONDS

    def __init__(self, taps: Taps, stream: Stream | None, wanted: Wanted) -> None:
        """`stream`: None where the client is another process's, which asks for `rows`."""
        taps.count += 1
        self.number = taps.count
        self.stream = stream
        self.wanted = wanted
        self.wake = asyncio.Event()
        self.is_over = False
        self._taps = taps
        self._queue: deque[FinishedExchange | Mapping[str, Any]] = deque()
        self._lost = 0

    def look(self, exchange: ObservedExchange) -> None:
        """Keep what is wanted of an exchange that has ended."""
        if self.wanted.takes(exchange):
            self._keep(FinishedExchange(exchange))

    def show(self, rows: Sequence[Mapping[str, Any]], lost: int) -> None:
        """Requests that another process has answered, as `rows` gives them, and how many it could not keep."""
        self._lose(lost)
        for row in rows:
            self._keep(row)

    def _keep(self, one: FinishedExchange | Mapping[str, Any]) -> None:
        if len(self._queue) >= CAPACITY:
            self._queue.popleft()
            self._lose(1)
        self._queue.append(one)
        self.wake.set()

    def _lose(self, count: int) -> None:
        self._lost += count
        self._taps.lost += count

    def end(self) -> None:
        self.is_over = True
        self.wake.set()

    def greeting(self) -> bytes:
        return b": tapping\n\n"

    def rows(self) -> tuple[list[Mapping[str, Any]], int]:
        """Some of what is kept, as JSON has it, and how many were lost before."""
        lost, self._lost = self._lost, 0
        found: list[Mapping[str, Any]] = []
        while self._queue and len(found) < _BATCH and not self.is_over:
            one = self._queue.popleft()
            found.append(self._taps.words(one) if isinstance(one, FinishedExchange) else one)
        return found, lost

    def take(self) -> bytes:
        rows, lost = self.rows()
        block = [lost_event(lost)] if lost else []
        for row in rows:
            body = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            block.append(f"event: request\ndata: {body}\n\n")
        return "".join(block).encode("utf-8", "replace")


class _Tapped:
    """The usual observer first, then every reader."""

    def __init__(self, observe: Observe, taps: Taps) -> None:
        self._observe = observe
        self._taps = taps

    def finished(self, exchange: ObservedExchange) -> None:
        self._observe.finished(exchange)
        for tap in self._taps.readers:
            tap.look(exchange)

    def transitioned(self, transition: Transition) -> None:
        self._observe.transitioned(transition)

    def checked(self, checked: Checked) -> None:
        self._observe.checked(checked)

    def copy_ended(self, route_name: str, upstream: str, outcome: CopyOutcome) -> None:
        self._observe.copy_ended(route_name, upstream, outcome)

    def mirrored(self, copy: Mirrored) -> None:
        self._observe.mirrored(copy)

    def endpoint_changed(self, change: EndpointChange) -> None:
        self._observe.endpoint_changed(change)

    def noticed(self, notice: Notice, route_name: str) -> None:
        self._observe.noticed(notice, route_name)
