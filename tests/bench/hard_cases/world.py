"""The simulated world: a clock, callers, a proxy with one breaker, and what an upstream may do to it.

Virtual time, an event heap, seeded chance: a run is the same everywhere. The proxy does what the data path does with
one attempt (queue, send, head, end, time-out, a caller that leaves) and tells the breaker under test, a `Subject`,
each moment. It knows no rule of any breaker.
"""

from __future__ import annotations

import heapq
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any


class Limit(Enum):
    """Who set the limit that ends an attempt first."""

    ROUTE = "route"
    CALLER = "caller"
    STRANGER = "stranger"


class Ended(Enum):
    """How an attempt ended."""

    ANSWERED = "answered"
    REFUSED = "connection refused"
    RESET = "reset"
    TIMED_OUT = "timed out"
    LEFT = "its caller left"
    QUEUED = "ended in our own queue"
    NEIGHBOUR = "refused by the breaker of the next sidecar"


@dataclass(frozen=True)
class Call:
    """What a caller wants and how it behaves. Seconds."""

    kind: str = "plain"
    """For the upstream to tell calls apart."""
    budget: float = inf
    limit: Limit = Limit.CALLER
    """Whose budget that is."""
    leaves_after: float = inf
    body_after: float = 0.0
    """When its last byte has been sent; `inf` for an upload that stalls."""
    is_large: bool = False
    """What comes of its body at once is as much as a proxy keeps: there is nothing to wait for."""
    is_reading: bool = True
    """False: it takes nothing of the answer's body."""
    name: str = ""
    """A group of callers whose answers are counted apart."""


CHECK = Call("check", budget=1.0, limit=Limit.ROUTE, name="checks")
"""What a proxy asks by itself."""


@dataclass
class Counts:
    """What became of the calls of one group, or of all."""

    good: int = 0
    lost: int = 0
    """Went to the upstream and failed."""
    refused: int = 0
    first_good: float = inf
    refused_at_once: int = 0


class Subject(ABC):
    """A breaker under test. `token` is whatever `admit` returned for the attempt."""

    name: str
    waits_for_body = False
    """Whether it is asked when the request's body is whole, as far as it wants that."""

    @abstractmethod
    def admit(self, attempt: Attempt, now: float) -> object | None:
        """A token, or None: refused. `LATER` asks for the whole body first."""

    @abstractmethod
    def ended(self, token: Any, attempt: Attempt, how: Ended, now: float) -> None:
        """The attempt is over."""

    @abstractmethod
    def state(self) -> str:
        """`closed`, `open` or `half_open`."""

    def sent(self, token: Any, attempt: Attempt, now: float) -> None:  # noqa: B027
        """The request is at the upstream, or begins to be sent there."""

    def turn(self, token: Any, is_clients: bool, now: float) -> None:  # noqa: B027
        """From now on it is the client's turn, or the upstream's."""

    def head(self, token: Any, attempt: Attempt, now: float) -> None:  # noqa: B027
        """The final head has come; `attempt.status` has it."""

    def next_look(self, token: Any) -> float:
        """When the attempt is to be looked at again."""
        return inf

    def look(self, token: Any, now: float) -> None:  # noqa: B027
        """That moment has come."""

    def tick(self, now: float) -> None:  # noqa: B027
        """About each second."""

    def check(self, now: float) -> object | None:
        """A token for a request of the proxy's own, None: there is nothing to check now."""
        return None

    def retry_after(self, now: float) -> float:
        """Of a refusal, in seconds."""
        return 1.0


LATER = object()


class World:
    """Clock and chance."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, act: Callable[[], None]) -> None:
        if when < inf:
            self._count += 1
            heapq.heappush(self._events, (max(when, self.now), self._count, act))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self.at(self.now + seconds, act)

    def every(self, seconds: float, act: Callable[[], None], since: float = 0.0, until: float = inf) -> None:
        """Act again and again. `seconds` are exact: callers that should not move in step draw their own."""

        def again() -> None:
            if self.now < until:
                act()
                self.after(seconds, again)

        self.at(since, again)

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = until


class Attempt:
    """One call on its way, as the proxy sees it."""

    def __init__(self, proxy: Proxy, call: Call, done: Callable[[Attempt], None] | None) -> None:
        self.proxy = proxy
        self.call = call
        self.done = done
        self.began = proxy.world.now
        self.token: object | None = None
        self.endpoint = ""
        self.sent_at = inf
        self.allowed = inf
        """What it may take at the upstream, from `sent_at`."""
        self.status = 0
        self.head_at = inf
        self.retry_after = 0.0
        self.is_whole = call.is_large or call.body_after <= 0.0
        self.is_over = False
        self.is_refused = False
        """By our own breaker, or by one further on."""
        self.is_good = False
        self.has_length = False
        self.moved_at = inf
        """When the last byte of the answer came."""

    @property
    def limit(self) -> Limit:
        return self.call.limit if self.call.budget < self.proxy.timeout else Limit.ROUTE

    @property
    def world(self) -> World:
        return self.proxy.world

    # What an upstream does with it.

    def answer(self, status: int, *, has_length: bool = False, retry_after: float = 0.0) -> None:
        """The final head."""
        if self.is_over:
            return
        now = self.world.now
        self.status, self.has_length, self.retry_after = status, has_length, retry_after
        self.head_at = self.moved_at = now
        self.proxy.subject.head(self.token, self, now)
        if not self.call.is_reading:
            self.proxy.subject.turn(self.token, True, now)
        self.proxy.watch(self)

    def move(self) -> None:
        """Bytes of the answer."""
        self.moved_at = self.world.now

    def end(self, how: Ended = Ended.ANSWERED) -> None:
        if not self.is_over:
            self.proxy.close(self, how)


class Upstream(ABC):
    """Takes requests. `begin` arranges that the attempt is told what becomes of it."""

    endpoints: tuple[str, ...] = ("10.0.0.7:8080",)

    @abstractmethod
    def begin(self, attempt: Attempt) -> None: ...


class Proxy:
    """Asks one breaker, sends, and tells it what came of each attempt."""

    def __init__(
        self,
        world: World,
        subject: Subject,
        upstream: Upstream,
        timeout: float = 15.0,
        connections: float = inf,
    ) -> None:
        self.world = world
        self.subject = subject
        self.upstream = upstream
        self.timeout = timeout
        self.counts: dict[str, Counts] = {}
        self.states: list[tuple[float, str]] = [(0.0, subject.state())]
        self.running: set[Attempt] = set()
        self.is_well: Callable[[float], bool] = lambda now: True
        """Whether a call that is refused now would have been answered well."""
        self._free = connections
        self._queue: deque[Attempt] = deque()
        self._turn = 0
        world.every(1.0, self._tick, 1.0)

    def _tick(self) -> None:
        self.subject.tick(self.world.now)
        token = self.subject.check(self.world.now)
        self._note()
        if token is not None:
            self._begin(Attempt(self, CHECK, None), token)

    def _note(self) -> None:
        state = self.subject.state()
        if state != self.states[-1][1]:
            self.states.append((self.world.now, state))

    def group(self, name: str) -> Counts:
        return self.counts.setdefault(name, Counts())

    def call(self, call: Call, done: Callable[[Attempt], None] | None = None) -> None:
        """A request has come; `done` hears when it is over."""
        self._ask(Attempt(self, call, done))

    def _ask(self, attempt: Attempt) -> None:
        now = self.world.now
        token = self.subject.admit(attempt, now)
        self._note()
        if token is LATER:
            self.world.at(attempt.began + attempt.call.body_after, lambda: self._ask_whole(attempt))
            return
        if token is None:
            attempt.is_refused = True
            attempt.retry_after = self.subject.retry_after(now)
            self._count(attempt, "refused")
            if attempt.done is not None:
                attempt.done(attempt)
            return
        self._begin(attempt, token)

    def _begin(self, attempt: Attempt, token: object) -> None:
        attempt.token = token
        self.running.add(attempt)
        call = attempt.call
        self.world.at(attempt.began + min(call.budget, self.timeout), lambda: self._time_is_over(attempt))
        self.world.at(attempt.began + call.leaves_after, lambda: attempt.end(Ended.LEFT))
        if self._free > 0:
            self._send(attempt)
        else:
            self._queue.append(attempt)

    def next_turn(self) -> int:
        """Endpoints are taken in turn."""
        self._turn += 1
        return self._turn

    def _ask_whole(self, attempt: Attempt) -> None:
        attempt.is_whole = True
        self._ask(attempt)

    def _send(self, attempt: Attempt) -> None:
        self._free -= 1
        now = self.world.now
        if not attempt.endpoint:
            endpoints = self.upstream.endpoints
            attempt.endpoint = endpoints[self.next_turn() % len(endpoints)]
        attempt.sent_at = now
        attempt.allowed = attempt.began + min(attempt.call.budget, self.timeout) - now
        self.subject.sent(attempt.token, attempt, now)
        left = attempt.began + attempt.call.body_after - now
        if left <= 0.0:
            self.upstream.begin(attempt)
        else:
            self.subject.turn(attempt.token, True, now)
            self.world.after(left, lambda: self._body_is_whole(attempt))
        self.watch(attempt)

    def _body_is_whole(self, attempt: Attempt) -> None:
        if not attempt.is_over:
            self.subject.turn(attempt.token, False, self.world.now)
            self.upstream.begin(attempt)
            self.watch(attempt)

    def watch(self, attempt: Attempt) -> None:
        """Look at it again when the breaker wants that."""
        due = self.subject.next_look(attempt.token)

        def look() -> None:
            if not attempt.is_over and self.world.now >= self.subject.next_look(attempt.token):
                self.subject.look(attempt.token, self.world.now)
                self._note()
                self.watch(attempt)

        self.world.at(due, look)
        self._note()

    def _time_is_over(self, attempt: Attempt) -> None:
        if attempt.is_over:
            return
        attempt.end(Ended.TIMED_OUT if attempt.sent_at < inf else Ended.QUEUED)

    def close(self, attempt: Attempt, how: Ended) -> None:
        now = self.world.now
        attempt.is_over = True
        self.running.discard(attempt)
        if attempt.sent_at < inf:
            self._free += 1
        else:
            self._queue.remove(attempt)
        attempt.is_good = how is Ended.ANSWERED and attempt.status < 500
        attempt.is_refused = how is Ended.NEIGHBOUR
        self.subject.ended(attempt.token, attempt, how, now)
        self._note()
        self._count(attempt, "good" if attempt.is_good else "lost")
        if attempt.done is not None:
            attempt.done(attempt)
        while self._queue and self._free > 0:
            self._send(self._queue.popleft())

    def _count(self, attempt: Attempt, what: str) -> None:
        now = self.world.now
        for counts in (self.group(""), self.group(attempt.call.name or "others")):
            if what == "good":
                counts.good += 1
                if attempt.head_at < counts.first_good:
                    counts.first_good = attempt.head_at
            elif what == "lost":
                counts.lost += 1
            else:
                counts.refused += 1
                counts.refused_at_once += self.is_well(now)

    def cut(self, endpoint: str) -> None:
        """Every connection to that endpoint is lost."""
        for attempt in sorted(self.running, key=lambda one: (one.began, id(one.call))):
            if attempt.endpoint == endpoint and not attempt.is_over:
                attempt.end(Ended.RESET)
