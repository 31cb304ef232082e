"""One policy on what was seen: the breaker of the data path, on virtual time, is asked and told once more. Pure.

What it admits ends as it did; of what was refused then, nobody knows how it would have ended, so a replay is made
under an assumption: all of that fails, or all is good. The truth lies between. A request of which the policy refuses
an attempt makes no further one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from enum import Enum
from heapq import heappop, heappush
from math import inf
from typing import Final

from sidecar.core.breaker import Breaker
from sidecar.core.breaker.door import Door
from sidecar.core.breaker.permit import BreakerPermit, BreakerRefusal
from sidecar.core.dataclass import dataclass
from sidecar.core.ejection.peers import Peers
from sidecar.core.errors import Reason
from sidecar.core.outcome import Kind, Outcome, Verdict
from sidecar.core.snapshot import BreakerPolicy, EjectionPolicy
from sidecar.tuning.seen import Call

SEED: Final = 16
_GONE_SECONDS: Final = 30.0
"""An endpoint that had no call for so long before the end of all has left."""
_LOOK_SECONDS: Final = 5.0
"""Between two looks at who has left."""
_RESETS: Final = frozenset({Reason.CONNECTION_RESET, Reason.INCOMPLETE_RESPONSE, Reason.PROTOCOL_ERROR})


class Assume(Enum):
    """How the calls would have ended that were refused."""

    ALL_FAILED = "all failed"
    ALL_GOOD = "all good"


@dataclass(slots=True)
class Figures:
    """What a policy came to, in one outage or outside of all."""

    requests: int = 0
    sent: int = 0
    """Attempts that reached the upstream."""
    failed: int = 0
    """Of them, those that failed."""
    refused: int = 0
    """Requests."""
    good_refused: int = 0
    """Of them, those that were good in fact, or by assumption."""

    @property
    def cost(self) -> int:
        """Failures let through and good requests refused count alike: each is one that went wrong for want of the
        other decision."""
        return self.failed + self.good_refused

    def add(self, other: Figures) -> None:
        self.requests += other.requests
        self.sent += other.sent
        self.failed += other.failed
        self.refused += other.refused
        self.good_refused += other.good_refused


@dataclass(frozen=True, slots=True)
class Line:
    """What one breaker saw, ready to be played again and again."""

    route: str
    upstream: str
    calls: Sequence[Call]
    """In the order of time."""
    places: Sequence[int]
    """Of each call: the number of its outage, or -1."""
    good_requests: frozenset[int]
    """Numbers of requests that ended well."""
    good_seconds: float
    """How long a good call usually takes."""
    failed_seconds: Mapping[int, float]
    """By outage: how long a failed call takes."""
    ejection: EjectionPolicy


class _Place:
    """Where attempts at an endpoint are counted (`ejection.standing.Member`)."""

    __slots__ = ("begun_at", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        self.begun_at = -inf


class Replay:
    """One line under one policy. To be run once."""

    def __init__(self, line: Line, policy: BreakerPolicy, assume: Assume, outages: int) -> None:
        self._line = line
        self._assume = assume
        self.figures = [Figures() for _ in range(outages + 1)]
        """By outage; the last one is of all other calls."""
        began = line.calls[0].at if line.calls else 0.0
        names = sorted({one.endpoint for one in line.calls if one.endpoint})
        self._peers = Peers(line.upstream, line.ejection) if len(names) > 1 else None
        self._places = {name: _Place() for name in names}
        self._last = {one.endpoint: one.at for one in line.calls} if self._peers else {}
        self._turn = 0
        self._look_at = began
        rng = random.Random(SEED)
        self._breaker = Breaker(line.route, line.upstream, policy, rng, began, peers=self._peers)
        self._due: list[tuple[float, int, _Running | None, Door | None, float, str]] = []
        self._number = 0

    def run(self) -> list[Figures]:
        """Play all calls."""
        line, due, figures, breaker = self._line, self._due, self.figures, self._breaker
        over: set[int] = set()
        for call, place in zip(line.calls, line.places, strict=True):
            now = call.at
            while due and due[0][0] <= now:
                self._act()
            if call.request in over:
                continue
            of = figures[place]
            of.requests += call.attempt == 0
            endpoint = self._endpoint(call, now)
            answer = breaker.admit(now)
            if isinstance(answer, BreakerRefusal):
                over.add(call.request)
                of.refused += 1
                is_good = call.request in line.good_requests
                of.good_refused += self._assume is Assume.ALL_GOOD if call.is_refused else is_good
                continue
            of.sent += 1
            if call.is_refused:
                call = self._assumed(call, place)
            of.failed += call.is_failure
            self._send(answer, call, endpoint)
        while due:
            self._act()
        return figures

    def _assumed(self, call: Call, place: int) -> Call:
        line = self._line
        if self._assume is Assume.ALL_GOOD:
            seconds, status, verdict = line.good_seconds, 200, Verdict.SUCCESS
        else:
            seconds, status, verdict = line.failed_seconds.get(place, line.good_seconds), 500, Verdict.FAILURE
        return Call(call.at, call.upstream, "", 0, seconds, seconds, status, verdict)

    # Endpoints

    def _endpoint(self, call: Call, now: float) -> str:
        """Whose call it is; a call that was refused would have gone to any."""
        peers = self._peers
        if peers is None:
            return call.endpoint
        if peers.next_due() <= now:
            peers.tick(now)
        peers.news.clear()
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            for name in [name for name in peers.members if self._last[str(name)] + _GONE_SECONDS < now]:
                peers.leave(name, self._places[str(name)], now)
        name = call.endpoint
        if not name:
            members = list(peers.members)
            self._turn += 1
            return str(members[self._turn % len(members)]) if members else ""
        if name not in peers.members:
            peers.join(name, self._places[name], now)
        return name

    # One call

    def _send(self, answer: Door | BreakerPermit, call: Call, endpoint: str) -> None:
        at, whole = call.at, call.whole_seconds
        place = self._places.get(endpoint)
        if place is not None:
            place.in_flight += 1
            place.begun_at = at
        self._number += 1
        if isinstance(answer, Door) and self._is_plain(answer, call, endpoint):
            heappush(self._due, (at + whole, self._number, None, answer, whole, endpoint))
            return
        permit = answer.own()
        permit.sent(endpoint, at)
        running = _Running(permit, call, endpoint, at)
        heappush(self._due, (running.next(), self._number, running, None, 0.0, endpoint))

    def _is_plain(self, door: Door, call: Call, endpoint: str) -> bool:
        """Whether nothing but its end is of interest."""
        if not call.is_good or call.status >= 400 or call.whole_seconds >= door.slow_seconds:
            return False
        if call.whole_seconds - (call.head_seconds or 0.0) >= door.judge_after_seconds:
            return False
        standing = None if self._peers is None else self._peers.members.get(endpoint)
        return standing is None or not standing.is_watched

    def _act(self) -> None:
        """The next thing that is due."""
        now, _, running, door, whole, endpoint = heappop(self._due)
        if running is not None and running.act(now):
            self._number += 1
            heappush(self._due, (running.next(), self._number, running, None, 0.0, endpoint))
            return
        place = self._places.get(endpoint)
        if place is not None:
            place.in_flight -= 1
        if door is not None:
            standing = None if self._peers is None else self._peers.members.get(endpoint)
            if standing is not None:
                standing.good += 1
            door.succeed(whole, now)


class _Running:
    """An attempt of which more than its end is of interest."""

    __slots__ = ("_call", "_ends_at", "_head_at", "_permit")

    def __init__(self, permit: BreakerPermit, call: Call, endpoint: str, at: float) -> None:
        self._permit = permit
        self._call = call
        head, whole = call.head_seconds, call.whole_seconds
        self._head_at = inf if head is None or head >= whole else at + head
        self._ends_at = at + whole

    def next(self) -> float:
        """When `act` is due."""
        return min(self._ends_at, self._head_at, self._permit.next_look)

    def act(self, now: float) -> bool:
        """Tell the breaker what happens now. Returns whether it goes on."""
        permit = self._permit
        if now >= self._ends_at:
            permit.judge(outcome_of(self._call), now)
            permit.close(now)
            return False
        if now >= self._head_at:
            self._head_at = inf
            permit.head(self._call.status, now)
        if now >= permit.next_look:
            permit.look(now)
        return True


def outcome_of(call: Call) -> Outcome:
    """What to tell a breaker of its end, so that it comes to the verdict of then."""
    verdict = call.verdict
    if verdict is Verdict.SUCCESS and call.reason is None:
        # A status that would be judged otherwise was none of `failure_on` then.
        return Outcome(Kind.ANSWERED, call.status if call.status < 429 else 200)
    if verdict is Verdict.SUCCESS or (verdict is Verdict.FAILURE and call.reason in _RESETS):
        return Outcome(Kind.RESET, call.status)
    if verdict is Verdict.FAILURE:
        return Outcome(Kind.ANSWERED, call.status or 500, has_failure_header=True)
    if verdict is Verdict.RATE_ONLY_FAILURE:
        return Outcome(Kind.ANSWERED, 429)
    if verdict is Verdict.SILENCE:
        return Outcome(Kind.LEFT)
    return Outcome(Kind.ABANDONED)
