"""What stands behind the proxy in the situations: scripts, workers with a queue, and a further sidecar."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf

from tests.bench.hard_cases.world import Attempt, Call, Ended, Limit, Proxy, Upstream, World

OFFSET = 0.005
"""What a sidecar takes off the budget that it hands on, so as to answer before its caller gives up."""


@dataclass(frozen=True)
class Plan:
    """What becomes of one request. Seconds from its arrival at the upstream; `inf` for never."""

    head: float = 0.02
    status: int = 200
    body: float = 0.0
    """From the head to the end."""
    how: Ended = Ended.ANSWERED
    has_length: bool = False
    moves_each: float = inf
    """Bytes come this often between head and end."""
    retry_after: float = 0.0


GOOD = Plan()
HANGS = Plan(head=inf)
REFUSES = Plan(head=inf, how=Ended.REFUSED)
FAILS = Plan(status=500)


class Script(Upstream):
    """Asks a function what becomes of each request."""

    def __init__(
        self,
        world: World,
        plan: Callable[[Attempt, float], Plan],
        endpoints: tuple[str, ...] = ("10.0.0.7:8080",),
    ) -> None:
        self.world = world
        self.plan = plan
        self.endpoints = endpoints

    def begin(self, attempt: Attempt) -> None:
        world = self.world
        plan = self.plan(attempt, world.now)
        if plan.how is Ended.REFUSED:
            world.after(0.001, partial(attempt.end, Ended.REFUSED))
            return
        head_at = world.now + plan.head
        world.at(
            head_at,
            lambda: attempt.answer(plan.status, has_length=plan.has_length, retry_after=plan.retry_after),
        )
        if plan.moves_each < inf:
            world.every(plan.moves_each, attempt.move, head_at, min(head_at + plan.body, world.now + 60.0))
        world.at(head_at + plan.body, partial(attempt.end, plan.how))


class Workers(Upstream):
    """Some workers and one queue; what its caller has given up is worked on all the same."""

    def __init__(self, world: World, count: int, seconds: Callable[[Attempt, float], float]) -> None:
        self.world = world
        self.seconds = seconds
        self._free = count
        self._queue: deque[Attempt] = deque()

    def begin(self, attempt: Attempt) -> None:
        self._queue.append(attempt)
        self._work()

    def _work(self) -> None:
        while self._free and self._queue:
            attempt = self._queue.popleft()
            self._free -= 1
            self.world.after(self.seconds(attempt, self.world.now), partial(self._finish, attempt))

    def _finish(self, attempt: Attempt) -> None:
        self._free += 1
        attempt.answer(200)
        attempt.end()
        self._work()


class NextSidecar(Upstream):
    """Another proxy with a breaker of its own; its refusals say so."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def begin(self, attempt: Attempt) -> None:
        world = self.proxy.world
        left = attempt.sent_at + attempt.allowed - world.now - OFFSET
        call = Call(kind=attempt.call.kind, budget=left, limit=Limit.CALLER)

        def done(further: Attempt) -> None:
            if further.is_good:
                attempt.answer(200)
                attempt.end()
            elif further.is_refused:
                attempt.answer(503, retry_after=further.retry_after)
                attempt.end(Ended.NEIGHBOUR)
            else:
                attempt.answer(504)
                attempt.end()

        self.proxy.call(call, done)
