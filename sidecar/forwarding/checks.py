"""Who checks upstreams whose breakers have waited, and when (`half_open.check`, SPEC 3).

A `Checker` for each breaker whose policy has a check. It sleeps until the breaker's wait is over, which the breaker
itself knows: no breaker is asked on the off chance, and nothing runs while all are closed. One check at a time is
under way for each, bounded by its timeout, and every change of state calls off what it made needless. Owned by the
event loop; `runtime/` adopts routes as configurations come and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from math import inf
from typing import TYPE_CHECKING, Final

from sidecar.core.breaker.permit import BreakerRefusal
from sidecar.core.checked import Checked
from sidecar.core.hosts import pattern_port
from sidecar.core.outcome import Verdict
from sidecar.core.snapshot import Endpoint, Route, Source
from sidecar.core.transition import State, Transition
from sidecar.forwarding.check import Check

if TYPE_CHECKING:
    from sidecar.forwarding.live import Destination, LiveRoute
    from sidecar.forwarding.service import Service

Key = tuple[str, str]
"""Route and upstream."""
AGAIN_SECONDS: Final = 1.0
"""After a check that could not be sent, by our own lack of a place; and after a mistake of ours."""


class Checker:
    """Of one breaker."""

    __slots__ = ("_has_failed", "_running", "_service", "_timer", "destination", "route")

    def __init__(self, service: Service, destination: Destination, route: Route) -> None:
        self.destination = destination
        self.route = route
        self._service = service
        self._timer: asyncio.TimerHandle | None = None
        self._running: Check | None = None
        self._has_failed = False
        """Since its breaker was last closed: the next failure is no news."""

    def __repr__(self) -> str:
        doing = "checks" if self._running else "waits" if self._timer else "rests"
        return f"<Checker of {self.destination.breaker.route} \u2192 {self.destination.cluster.name} {doing}>"

    def look(self, at_least: float = 0.0) -> None:
        """Something has changed: see when there is something to check next, after `at_least` seconds."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        breaker, now = self.destination.breaker, self._service.clock()
        if breaker.state is State.CLOSED:
            self._has_failed = False
        running = self._running
        if running is not None:
            if running.permit.generation == breaker.generation:
                return
            self._running = None
            running.cancel()
        due = breaker.next_check(now)
        if due < inf:
            seconds = max(due - now, at_least)
            self._timer = self._service.loop.call_later(seconds, self._begin_safely)

    def close(self) -> None:
        """Check no more, and let go of what is under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        running, self._running = self._running, None
        if running is not None:
            running.cancel()

    def _begin_safely(self) -> None:
        """A mistake of ours is told, and does not end the checks of this breaker."""
        self._timer = None
        try:
            self._begin()
        except Exception as error:
            message = f"an error in the check of {self.destination.cluster.name}"
            self._service.loop.call_exception_handler({"message": message, "exception": error})
            self.close()
            self.look(AGAIN_SECONDS)

    def _begin(self) -> None:
        service, destination = self._service, self.destination
        breaker = destination.breaker
        answer = breaker.admit_check(service.clock())
        policy = breaker.policy.half_open_check
        if isinstance(answer, BreakerRefusal) or policy is None:
            if answer.transition is not None:
                service.transitioned(answer.transition)
            self.look()
            return
        where = (policy.host or "").encode() or _authority(
            self.route, destination.cluster.policy.endpoints[0]
        )
        check = self._running = Check(service, destination.cluster, answer, policy, where, self._ended)
        if answer.transition is not None:
            service.transitioned(answer.transition)
        check.begin()

    def _ended(self, check: Check, transition: Transition | None) -> None:
        self._running = None
        breaker, error, facts = self.destination.breaker, check.error, check.facts
        is_news = not check.is_good and not self._has_failed
        self._has_failed = self._has_failed or not check.is_good
        checked = Checked(
            breaker.route,
            breaker.upstream,
            check.request.policy.told,
            facts.endpoint,
            check.trace_id,
            check.span_id,
            check.ids.is_sampled,
            check.request.started,
            check.request.ended,
            0 if check.answer is None else check.answer.status,
            None if error is None else error.reason,
            "" if error is None else error.detail,
            check.is_good,
            is_news,
            facts.http_version,
            scheme=facts.scheme,
            tls=facts.tls,
        )
        self._service.observe.checked(checked)
        if transition is not None:
            self._service.transitioned(transition)  # which looks here
        else:
            self.look(0.0 if check.permit.verdict is Verdict.SUCCESS else AGAIN_SECONDS)


class Checks:
    """All of one process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._checkers: dict[Key, Checker] = {}

    def __repr__(self) -> str:
        return f"<Checks {list(self._checkers.values())}>"

    def __len__(self) -> int:
        return len(self._checkers)

    def adopt(self, live: LiveRoute) -> None:
        """A route is live under its present policy, be it new or not: check what it says."""
        for destination in live.everywhere():
            key = destination.breaker.route, destination.breaker.upstream
            before = self._checkers.get(key)
            is_checked = destination.breaker.policy.half_open_check is not None
            if before is not None and (
                not is_checked or before.destination.breaker is not destination.breaker
            ):
                self._checkers.pop(key).close()
                before = None
            if is_checked:
                checker = before or Checker(self._service, destination, live.policy)
                if checker.destination.cluster is not destination.cluster:
                    checker.close()  # other endpoints: what is under way may ask one that has left
                checker.destination, checker.route = destination, live.policy
                self._checkers[key] = checker
                checker.look()

    def retain(self, keys: Collection[Key]) -> None:
        """Only these breakers are left."""
        for key in [one for one in self._checkers if one not in keys]:
            self._checkers.pop(key).close()

    def transitioned(self, transition: Transition) -> None:
        """A breaker has changed its state."""
        checker = self._checkers.get((transition.route, transition.upstream))
        if checker is not None:
            checker.look()

    def close(self) -> None:
        """Check nothing any more."""
        self.retain(())


def _authority(route: Route, endpoint: Endpoint) -> bytes:
    """What `Host` says: what the route's own requests would say, as far as the configuration knows."""
    if route.rewrite.host is not None:
        return route.rewrite.host.encode()
    for match in route.matches:
        for host in match.hosts:
            if "*" not in host:
                name, port = pattern_port(host)
                shown = f"[{name}]" if ":" in name and not name.startswith("[") else name
                return (shown if port is None else f"{shown}:{port}").encode()
    if endpoint.source is not Source.ADDRESS:
        return endpoint.domain.encode()
    return b"localhost" if endpoint.path is not None else str(endpoint).encode()
