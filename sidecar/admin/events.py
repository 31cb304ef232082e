"""`GET /events`: transitions, reloads, changes of endpoints and failovers as they happen, to any number of
readers, in order.

There is one ring of the last events and each reader has a place in it, so the queue of a reader is bounded by the
ring and costs nothing. A reader that comes back with `Last-Event-ID` goes on where it was; what the ring no longer
has, for it or for one that is too slow, is counted and told to it as an event `lost`.

An event costs its cause one append: it is put into words when it is sent. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final

from sidecar.admin.answers import Refused
from sidecar.admin.cursor import place_of
from sidecar.admin.stream import HEARTBEAT_SECONDS, Stream
from sidecar.core.dataclass import dataclass
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.failover import FailoverChange
from sidecar.core.listing import EndpointsChange
from sidecar.core.transition import Transition
from sidecar.serving.message import Request

CAPACITY: Final = 512
"""Events that a reader may be behind."""
MAX_READERS: Final = 32
_BATCH: Final = 64
_RETRY_MS: Final = 2000


Content = Transition | EndpointChange | EndpointsChange | FailoverChange | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    number: int
    """Counts the events of this process from 1, without gaps."""
    kind: str
    """`transition`, `endpoint`, `endpoints`, `failover`, `reload` or `worker`."""
    content: Content


class Events:
    """The ring. `transitioned` and `reloaded` are told, `reader` is asked for."""

    def __init__(self) -> None:
        self.readers: set[Reader] = set()
        self.dropped = 0
        """Events that a reader missed, over all readers."""
        self.cut = 0
        """Readers that took nothing for too long."""
        self.refused = 0
        """Readers that there was no room for."""
        self.on_added: Callable[[], None] = lambda: None
        """Called with each event; for who passes them on to another process."""
        self._ring: deque[Event] = deque(maxlen=CAPACITY)
        self._count = 0
        self._life = secrets.token_hex(4)

    def transitioned(self, transition: Transition) -> None:
        self._add("transition", transition)

    def endpoint_changed(self, change: EndpointChange) -> None:
        self._add("endpoint", change)

    def failed_over(self, change: FailoverChange) -> None:
        self._add("failover", change)

    def reloaded(self, data: Mapping[str, Any]) -> None:
        self._add("reload", data)

    def endpoints_changed(self, change: EndpointsChange) -> None:
        self._add("endpoints", change)

    def told(self, kind: str, data: Mapping[str, Any]) -> None:
        """Something else, in words already: also what another process of ours has told."""
        self._add(kind, data)

    @property
    def last_number(self) -> int:
        """Of the last event; 0 before the first."""
        return self._count

    @property
    def last_id(self) -> str:
        return self.id_of(self._count)

    def id_of(self, number: int) -> str:
        """What a client sees as an event's id: another life of the process has others."""
        return f"{self._life}-{number}"

    def reader(self, last_id: str | None) -> Reader:
        """One that goes on after `last_id`, or begins now if that is None.

        An id of another life, of the future, or of nobody, begins with everything that is still here.

        Raises:
            Refused: there are too many.
        """
        gone = [reader for reader in self.readers if reader.is_gone]
        for reader in gone:
            reader.wake.set()
        if len(self.readers) - len(gone) >= MAX_READERS:
            self.refused += 1
            headers = {"Retry-After": f"{HEARTBEAT_SECONDS:.0f}"}
            raise Refused(503, f"{MAX_READERS} clients read events already", headers=headers)
        if last_id is None:
            return Reader(self, self._count + 1)
        place = place_of(last_id, self._life, self._count)
        if place is not None:
            return Reader(self, place + 1)
        return Reader(self, self._count + 1 - len(self._ring), is_lost=True)

    def since(self, number: int) -> tuple[list[Event], int]:
        """Some events from `number` on, and how many before them are gone."""
        first = self._count + 1 - len(self._ring)
        lost = max(0, first - number)
        begin = number + lost - first
        return list(islice(self._ring, begin, begin + _BATCH)), lost

    def close(self) -> None:
        """Let every reader end."""
        for reader in self.readers:
            reader.is_over = True
            reader.wake.set()

    def _add(self, kind: str, content: Content) -> None:
        self._count += 1
        self._ring.append(Event(self._count, kind, content))
        for reader in self.readers:
            reader.wake.set()
        self.on_added()


class Reader:
    """One client's place in the ring."""

    pause_seconds = 0.0

    def __init__(self, events: Events, place: int, *, is_lost: bool = False) -> None:
        self.wake = asyncio.Event()
        self.is_over = False
        self._events = events
        self._stream: Stream | None = None
        self._words: Callable[[Event], Mapping[str, Any]] = lambda _: {}
        self._place = place
        self._is_lost = is_lost

    @property
    def is_gone(self) -> bool:
        return self._stream is not None and self._stream.is_gone

    async def serve(self, request: Request, words: Callable[[Event], Mapping[str, Any]]) -> None:
        """Send what comes until the client goes or `Events.close`; `words` are an event's JSON."""
        self._words = words
        self._stream = stream = Stream(request)
        self._events.readers.add(self)
        try:
            await stream.serve(self)
        except TimeoutError:
            self._events.cut += 1
        finally:
            self._events.readers.discard(self)

    def greeting(self) -> bytes:
        """The id to come back with, even if nothing happens before: an event without data is only that."""
        lost = b"event: lost\ndata: {}\n\n" if self._is_lost else b""
        return b"retry: %d\nid: %b\n\n%b" % (_RETRY_MS, self._events.id_of(self._place - 1).encode(), lost)

    def take(self) -> bytes:
        """Some of the events that it has not seen, after how many of them it never will."""
        found, lost = self._events.since(self._place)
        if not found:
            return b""
        self._place = found[-1].number + 1
        self._events.dropped += lost
        block = [lost_event(lost)] if lost else []
        block += [self._text(event, self._words(event)) for event in found]
        return "".join(block).encode()

    def _text(self, event: Event, data: Mapping[str, Any]) -> str:
        body = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        return f"id: {self._events.id_of(event.number)}\nevent: {event.kind}\ndata: {body}\n\n"


def lost_event(count: int) -> str:
    """What tells a reader how many of the events before the next one it has missed."""
    return f'event: lost\ndata: {{"count":{count}}}\n\n'
