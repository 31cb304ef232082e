"""A route as it lives: its policy, what was computed from it once, and its breakers and clusters.

Built by `runtime/` from a snapshot and immutable from then on, but for the breakers and clusters that it points
to: those outlive it when a reload leaves them unchanged. An exchange keeps the `LiveRoute` it started with.
"""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any, Final

from sidecar.core import balance, deadline, headers
from sidecar.core.actions.cors import OWNED
from sidecar.core.actions.fields import static
from sidecar.core.admission import BudgetAdmission
from sidecar.core.breaker import Breaker
from sidecar.core.breaker.door import Door
from sidecar.core.breaker.permit import BreakerPermit, BreakerRefusal
from sidecar.core.contract import NO_SLOTS
from sidecar.core.errors import Reason
from sidecar.core.grpc_status import GrpcStatus
from sidecar.core.head import Added
from sidecar.core.hedge import Hedging
from sidecar.core.retry import RetryBudget
from sidecar.core.snapshot import (
    Direction,
    HeaderOps,
    Mode,
    RetryPolicy,
    Rewrite,
    Route,
    ShareFilter,
)
from sidecar.core.transition import State, Transition
from sidecar.forwarding import date
from sidecar.forwarding.acting import Acting, Rewriting, acts
from sidecar.forwarding.asking import Asking
from sidecar.forwarding.own_fields import OwnFields
from sidecar.forwarding.permit import Permit, Refusal
from sidecar.forwarding.standby import Standby
from sidecar.upstream.cluster import Cluster

VIA = (b"Via", b"1.1 sidecar")
"""RFC 9110 7.6.3, in answers."""
PSEUDONYM: Final = b"sidecar-" + os.urandom(4).hex().encode()
"""Of this process: by it a request that comes back is known. All workers of a process have the same."""
REQUEST_VIA = (b"Via", b"1.1 " + PSEUDONYM)
MOST_TURNS: Final = 8
"""So often may one request pass through this process; one that comes once more goes round for ever."""

NEVER_SECONDS = 1e9
"""Until the first look where idleness ends nothing (`timeouts.idle: off`): about thirty years. Infinity has no tick
in the sweep."""

NO_LOOK: Final = 0
HEDGE_ALONE: Final = 1
LIMITS: Final = 2
"""Of attempts, `timeouts.attempt` or `timeouts.head`; and maybe a hedge."""

USUAL_FOR_SECONDS = 0.1

_CLOSED: Final = State.CLOSED


class Copier(ABC):
    """Who has copies of a route's requests sent elsewhere."""

    __slots__ = NO_SLOTS

    in_flight: int
    """Copies under way."""

    @abstractmethod
    def choose(self, story: Any, route: LiveRoute) -> None:
        """Have a copy sent, if this request is to have one. Before anything of its body was given away."""


class Recorder(ABC):
    """Who keeps what came of a route's requests."""

    __slots__ = NO_SLOTS

    @abstractmethod
    def keep(self, attempts: Sequence[Any], reason: Reason | None) -> None:
        """The exchange has ended, with at least one attempt."""

    @abstractmethod
    def refuse(self, at: float, reason: Reason, state: State, refused_by: Transition | None) -> None:
        """Of what was asked for first, no attempt was made."""


class Destination:
    """An upstream as one route sees it: the cluster is shared between routes, the breaker is not."""

    __slots__ = (
        "_usual_seconds", "_usual_until", "breaker", "cluster", "copying", "hedging", "joins_spans", "leaving",
        "retry_budget", "standby",
    )  # fmt: skip

    def __init__(self, cluster: Cluster, breaker: Breaker) -> None:
        self.cluster = cluster
        self.breaker = breaker
        self.retry_budget: RetryBudget | None = None
        """None where nothing is tried again, nor hedged."""
        self.leaving = RetryBudget(0.0, 0.0, 0.0)
        """What requests that leave a suspect endpoint take from: the same, where there is one."""
        self.copying: Copier | None = None
        """None where no copies are made."""
        self.hedging: Hedging | None = None
        """None where nothing is; only beside a `retry_budget`."""
        self.standby: Standby[Destination] | None = None
        """Who takes over from it; None: nobody."""
        self.joins_spans = False
        """The exchange's own span stands for a first attempt here, which goes out under its id."""
        self._usual_seconds = 0.0
        self._usual_until = -inf

    def __repr__(self) -> str:
        return f"<Destination {self.breaker.route} → {self.cluster.name}>"

    def usual_seconds(self, now: float) -> float:
        """What half of its last good answers did not exceed; 0 while too few are known. Looked up ten times a second
        at most: to sort a thousand durations takes 60 µs."""
        if now >= self._usual_until:
            self._usual_seconds = self.breaker.durations.median() or 0.0
            self._usual_until = now + USUAL_FOR_SECONDS
        return self._usual_seconds

    def take_to_leave(self, now: float) -> bool:
        """Whether one more request may leave an endpoint that is suspect; it is taken off the budget if so."""
        return self._counted_leaving(now).take(now, self.breaker.tally.successful)

    def has_to_leave(self, now: float) -> bool:
        """Whether `take_to_leave` would say so; nothing is taken off."""
        return self._counted_leaving(now).may_take(now, self.breaker.tally.successful)

    def _counted_leaving(self, now: float) -> RetryBudget:
        if self.retry_budget is None:  # nobody tells this one of each request
            self.leaving.count(self.breaker.tally.total, now)
        return self.leaving

    def admit(self, now: float, asking: Asking) -> Permit | Refusal:
        """May an attempt be made now? Asks the breaker, then the limits of its upstream."""
        breaker, cluster = self.breaker, self.cluster
        door = breaker.machine.door
        if door is not None and breaker.candidate is None:
            breaker.tally.total += 1  # `Breaker.admit`, in the usual case: 0.2 µs less
            if cluster.in_flight < cluster.in_flight_limit.free_below:
                cluster.in_flight += 1
                permit = Permit()
                permit.begin(cluster, door.state, door, None)
                return permit
            return self._admit_within_limits(door, now)
        if breaker.state is _CLOSED:
            answer = breaker.admit(now)
        else:
            answer = breaker.admit(
                now,
                is_firm=asking.could_count(now),
                is_whole=asking.is_body_whole(),
                is_complete=asking.is_body_complete(),
            )
        if isinstance(answer, BreakerRefusal):
            return _refusal(breaker, answer)
        return self._admit_within_limits(answer, now)

    def _admit_within_limits(self, answer: Door | BreakerPermit, now: float) -> Permit | Refusal:
        """The breaker lets it go."""
        cluster = self.cluster
        if cluster.in_flight < cluster.in_flight_limit.free_below:
            cluster.in_flight += 1
        elif not cluster.admit():
            answer.own().close(now)
            return Refusal(Reason.OVERLOADED, cluster.why_full, 1.0, answer.state, answer.transition)
        elif cluster.adaptive is not None:
            answer = answer.own()  # whose head is timed
        permit = Permit()
        if isinstance(answer, BreakerPermit):
            permit.begin(cluster, answer.state, None, answer)
        else:
            permit.begin(cluster, answer.state, answer, None)
        return permit


def _refusal(breaker: Breaker, answer: BreakerRefusal) -> Refusal:
    return Refusal(
        Reason.CIRCUIT_OPEN,
        f"the circuit breaker of {breaker.route} to {breaker.upstream} is {answer.told}",
        answer.retry_after_seconds,
        answer.state,
        answer.transition,
        answer.refused_by,
        is_postponed=answer.is_postponed,
    )


class Instead:
    """What clients of a route get where its upstreams do not answer."""

    __slots__ = ("destination", "fields")

    def __init__(self, destination: Destination | None, fields: OwnFields) -> None:
        self.destination = destination
        """The upstream of `fallback`."""
        self.fields = fields
        """What `response_headers` do to the sidecar's own errors and to a fixed fallback."""


class LiveRoute:
    """What an exchange needs of its route, ready to use."""

    __slots__ = (
        "acting",
        "added_to_request",
        "added_to_response",
        "admission",
        "attempt_seconds",
        "choices",
        "deadline",
        "deadline_fields",
        "destinations",
        "drop_request",
        "drop_response",
        "early_look",
        "first_check_seconds",
        "has_plain_failures",
        "head_seconds",
        "idle_seconds",
        "instead",
        "is_deadline_sent",
        "is_egress",
        "is_plainly_judged",
        "is_remembered",
        "name",
        "outcomes",
        "own_forwarded",
        "plain_budget",
        "policy",
        "request_seconds",
        "rewriting",
        "sets_date",
        "single",
    )  # fmt: skip

    def __init__(
        self,
        policy: Route,
        destinations: Sequence[tuple[Destination, int]],
        fallback_destination: Destination | None = None,
        admission: BudgetAdmission | None = None,
        now: float = 0.0,
    ) -> None:
        self.policy = policy
        self.name = policy.name
        self.outcomes: Recorder | None = None
        """Who keeps what comes of its requests; None: nobody, as of those that no route of the file takes."""
        self.destinations = [destination for destination, _ in destinations]
        self.choices = [(destination, weight) for destination, weight in destinations if weight > 0]
        """Those that have a weight."""
        self.single = self.choices[0][0] if len(self.choices) == 1 else None
        self.instead = Instead(fallback_destination, OwnFields.of(policy))
        retry, hedge = policy.retry, policy.hedge
        for destination in self.everywhere():
            total = destination.breaker.tally.total
            destination.leaving = RetryBudget(retry.ratio, retry.min_per_second, now, total)
            if retry.attempts or hedge is not None:
                destination.retry_budget = destination.leaving
            if hedge is not None:
                destination.hedging = Hedging(hedge, destination.breaker.durations)
        self.deadline = policy.deadline
        self.request_seconds = policy.timeouts.request_seconds
        self.attempt_seconds = _or_never(policy.timeouts.attempt_seconds)
        self.head_seconds = _or_never(policy.timeouts.head_seconds)
        has_limits = self.attempt_seconds < inf or self.head_seconds < inf
        self.early_look = LIMITS if has_limits else NO_LOOK if policy.hedge is None else HEDGE_ALONE
        """What there is to look at before the deadline."""
        self.drop_request = headers.drop_set(
            headers.HOP_BY_HOP | headers.REPLACED_IN_REQUEST, policy.request_headers
        )
        self.drop_response = headers.drop_set(
            headers.HOP_BY_HOP | headers.REPLACED_IN_RESPONSE, policy.response_headers
        )
        self.sets_date = date.KEY in {*self.drop_response, *(name for name, _ in policy.response_headers.add)}
        """The route removes, sets or adds it, so it is nobody else's to pass on or to add: an answer has one."""
        self.drop_response |= {date.KEY}
        if policy.cors is not None:
            self.drop_response |= OWNED
        self.added_to_request = _added(REQUEST_VIA, policy.request_headers)
        self.added_to_response = _added(VIA, policy.response_headers)
        self.own_forwarded = self.drop_request & headers.FORWARDED
        """What the route says itself of the client, in the place of its listener."""
        self.is_deadline_sent = policy.deadline.mode is Mode.ENFORCE
        if self.is_deadline_sent:
            self.drop_request |= {deadline.EXPECTED_TIMEOUT}
        self.is_egress = policy.direction is Direction.OUTBOUND
        self.is_remembered = not self.is_egress and policy.deadline.mode is not Mode.OFF
        """Whether the app's own calls may want to find this route's exchanges."""
        self.idle_seconds = min(policy.timeouts.idle_seconds, NEVER_SECONDS)
        first_look = policy.breaker.judge_after_seconds
        self.first_check_seconds = min(self.idle_seconds, self.request_seconds, first_look)
        """From arrival, where its caller allows as much. Most exchanges are over before the breaker would judge one
        by its head, and with this look a usual head needs no entry of its own in the sweep."""
        self.plain_budget = deadline.budget({}, policy.deadline, self.request_seconds, None)
        self.deadline_fields = frozenset({*policy.deadline.headers, deadline.BAGGAGE})
        """Without any of these and a known caller, the budget is `plain_budget`."""
        self.admission = admission
        self.has_plain_failures = not policy.breaker.failure_headers and not any(
            one == GrpcStatus.OK or (isinstance(one, int) and 100 <= one < 400)
            for one in policy.breaker.failure_on
        )
        """A status below 400, and gRPC's OK, is a success, without asking `judge`."""
        self.is_plainly_judged = self.has_plain_failures and admission is None
        """Nobody but the breaker wants to know of a success."""
        self.rewriting = None if policy.rewrite == Rewrite() else Rewriting(policy.rewrite)
        variants = {
            upstream: LiveRoute(
                _for_share(policy, change), destinations, fallback_destination, admission, now
            )
            for upstream, change in policy.filters
        }
        self.acting = Acting(policy, self.added_to_response, variants) if acts(policy) else None
        """None where requests are only sent on."""

    def join_spans(self) -> None:
        """Let one span stand for an exchange and its first attempt, where there is seldom another one."""
        for one in self.everywhere():
            one.joins_spans = not self.is_egress and one.retry_budget is None

    def __repr__(self) -> str:
        return f"<LiveRoute {self.name} → {', '.join(d.cluster.name for d in self.destinations)}>"

    @property
    def fallback_destination(self) -> Destination | None:
        """The upstream of `fallback`."""
        return self.instead.destination

    @property
    def retry(self) -> RetryPolicy | None:
        """What is tried again; None for nothing. Where it is asked for each request, a destination's `retry_budget`
        is: this takes 0.1 µs."""
        policy = self.policy.retry
        return policy if policy.attempts else None

    @property
    def takers(self) -> dict[str, tuple[str, ...]]:
        """By upstream, who takes over from it."""
        return {
            one.cluster.name: tuple(one.standby.moved) for one in self.everywhere() if one.standby is not None
        }

    def everywhere(self) -> list[Destination]:
        """All that its requests may go to: its own, who takes over from them, and its fallback's. Each once."""
        own = [*self.destinations]
        if self.fallback_destination is not None:
            own.append(self.fallback_destination)
        others = [target for one in own if one.standby is not None for target in one.standby.targets]
        return list(dict.fromkeys((*own, *others)))

    def usual_seconds(self, now: float) -> float:
        """What half of the route's last good answers did not exceed; of several upstreams the fastest. 0 while too
        few are known of any."""
        return min([one.usual_seconds(now) for one in self.destinations], default=0.0)

    def choose(self, rng: random.Random) -> Destination:
        """The upstream for one exchange, by weight."""
        if self.single is not None:
            return self.single
        return balance.pick_weighted(self.choices, sum(weight for _, weight in self.choices), rng)


def _or_never(seconds: float | None) -> float:
    return inf if seconds is None else seconds


def _added(via: tuple[bytes, bytes], ops: HeaderOps) -> Added:
    return Added((via, *static(ops.set), *static(ops.add)))


def _for_share(policy: Route, change: ShareFilter) -> Route:
    """The route, with what is changed for one of its upstreams."""
    return replace(
        policy,
        request_headers=policy.request_headers.then(change.request_headers),
        response_headers=policy.response_headers.then(change.response_headers),
        filters=(),
    )
