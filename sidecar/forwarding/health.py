"""Who asks each endpoint of an upstream with a `health_check` whether it is well, and when.

Each endpoint is asked once an interval, the first time anywhere within it, by a connection of its own that no limit
of the upstream counts. At most `MOST_AT_ONCE` checks are under way; who is due beyond waits for its turn, in the
order of time. What a check shows goes to the upstream's `Peers`, which say what follows.

A part of the process runs it (`runtime/health.py`); what is known of endpoints is not here, so it survives the part.
Endpoints that come and go are seen at the next look, a second later at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Final

from sidecar.core.errors import Reason
from sidecar.core.health import CheckEnd, CheckVerdict, first_pause, next_pause
from sidecar.core.snapshot import Endpoint, HealthCheckPolicy
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.own_request import Ids, OwnRequest, Way, complaint
from sidecar.forwarding.pulse import Pulse
from sidecar.upstream.apart import Apart
from sidecar.upstream.lease import Lease

if TYPE_CHECKING:
    from sidecar.forwarding.service import Service
    from sidecar.upstream.cluster import AnyPool, Cluster

MOST_AT_ONCE: Final = 64
LOOK_SECONDS: Final = 1.0
"""From one look at which endpoints there are to the next."""
USER_AGENT: Final = "sidecar (health_check)"
NO_FILES: Final = "this process may open no more files (`ulimit -n`)"

Clusters = Callable[[], "Mapping[str, Cluster]"]
"""All that are live, by the name of their upstream."""


class Subject:
    """One endpoint that is asked."""

    __slots__ = ("begun", "due", "endpoint", "policy", "upstream", "visit")

    def __init__(self, upstream: str, endpoint: Endpoint, policy: HealthCheckPolicy, due: float) -> None:
        self.upstream = upstream
        self.endpoint = endpoint
        self.policy = policy
        self.due = due
        """When it is to be asked next; an entry of the heap with another time is not true any more."""
        self.begun = -inf
        self.visit: Visit | None = None
        """What is under way."""

    def __repr__(self) -> str:
        return f"<Subject {self.upstream} {self.endpoint} {'asked' if self.visit else 'waits'}>"


class CheckEnded:
    """A message: one check has ended."""

    __slots__ = ("subject", "verdict", "visit")

    def __init__(self, subject: Subject, visit: Visit, verdict: CheckVerdict) -> None:
        self.subject = subject
        self.visit = visit
        self.verdict = verdict


class Visit(Way):
    """One check."""

    __slots__ = ("_apart", "_on_end", "_subject", "request")

    def __init__(
        self, service: Service, cluster: Cluster, subject: Subject, on_end: Callable[[CheckEnded], object]
    ) -> None:
        check, ids = subject.policy.check, Ids(service, is_traced=False)
        host = (check.host or _configured(subject.endpoint)).encode()
        self._apart = Apart(cluster, subject.endpoint)
        self._subject = subject
        self._on_end = on_end
        self.request = OwnRequest(service, check, self, ids, USER_AGENT, host, self._ended)

    def __repr__(self) -> str:
        return f"<Visit {self._subject!r}>"

    def seek(self, request: OwnRequest) -> GivenUp | None:
        if self._apart.begin(request, request.policy.timeout_seconds):
            return None
        return GivenUp(Reason.OVERLOADED, NO_FILES, is_ours=True)

    def leased(self, lease: Lease) -> None: ...

    def not_leased(self) -> None: ...

    def is_ours(self) -> bool:
        return False

    def leave(self, request: OwnRequest) -> None:
        self._apart.close(request)

    def _ended(self, request: OwnRequest) -> None:
        self._on_end(CheckEnded(self._subject, self, verdict(request)))


def _configured(endpoint: Endpoint) -> str:
    """As the file says it, as far as it names a host."""
    if endpoint.path is not None:
        return "localhost"
    return str(endpoint) if endpoint.name is None else f"{endpoint.name}:{endpoint.port}"


def verdict(request: OwnRequest) -> CheckVerdict:
    """What one check has shown."""
    wrong, error = complaint(request), request.error
    if not wrong:
        return CheckVerdict(CheckEnd.PASSED)
    why = wrong if error is None else error.detail or wrong
    is_ours = error is not None and (error.is_ours or error.reason is Reason.OVERLOADED)
    return CheckVerdict(CheckEnd.IGNORED if is_ours or request.was_held else CheckEnd.FAILED, why)


def take(
    cluster: Cluster, endpoint: Endpoint, shown: CheckVerdict, policy: HealthCheckPolicy, now: float
) -> None:
    """Let an upstream know what a check of one of its endpoints has shown."""
    cluster.peers.checked(endpoint, shown, policy, now)
    cluster.settle(now)


class HealthChecks:
    """All of one process. The part that runs it calls `begin_due`, and `ended` with each message of `on_end`."""

    def __init__(
        self,
        service: Service,
        clusters: Clusters,
        on_end: Callable[[CheckEnded], object],
        on_checked: Callable[[str, Endpoint, CheckVerdict], None] = lambda *_: None,
    ) -> None:
        """`on_checked`: who else wants to know what a check of an upstream's endpoint has shown."""
        self._on_checked = on_checked
        self.running: set[Subject] = set()
        self._service = service
        self._clusters = clusters
        self._on_end = on_end
        self._subjects: dict[str, dict[Endpoint, Subject]] = {}
        """By upstream."""
        self._seen: dict[str, tuple[list[AnyPool], HealthCheckPolicy | None]] = {}
        """What there was at the last look."""
        self._heap: list[tuple[float, int, Subject]] = []
        self._number = 0
        self._look_at = -inf
        self._full_at = -inf
        """When somebody was due last, and there was no room."""
        self._pulse = Pulse(service, self._is_any_under_way)

    def __repr__(self) -> str:
        return f"<HealthChecks {len(self.running)} of {len(self)} under way>"

    def __len__(self) -> int:
        """Endpoints that are asked."""
        return sum(map(len, self._subjects.values()))

    # What there is

    def _look(self, now: float) -> None:
        clusters = self._clusters()
        self._look_at = now + LOOK_SECONDS
        for name in [one for one in self._seen if one not in clusters]:
            del self._seen[name]
            self._drop_all(self._subjects.pop(name, {}))
        for name, cluster in clusters.items():
            present = cluster.pools, cluster.policy.health_check
            seen = self._seen.get(name)
            if seen is None or seen[0] is not present[0] or seen[1] != present[1]:
                self._seen[name] = present
                self._meet(name, cluster, now)

    def _meet(self, name: str, cluster: Cluster, now: float) -> None:
        """Its endpoints or its check are others than before."""
        policy = cluster.policy.health_check
        before = self._subjects.pop(name, {})
        if policy is None:
            self._drop_all(before)
            cluster.peers.check_no_more(now)
            cluster.settle(now)
            return
        subjects = self._subjects[name] = {}
        for pool in cluster.pools:
            endpoint = pool.endpoint
            if endpoint in subjects:
                continue
            subject = before.pop(endpoint, None)
            if subject is None:
                subject = Subject(name, endpoint, policy, inf)
                self._await(subject, now + first_pause(policy, self._service.rng))
            elif subject.policy != policy:
                subject.policy = policy
                self._await(subject, min(subject.due, now + first_pause(policy, self._service.rng)))
            subjects[endpoint] = subject
        self._drop_all(before)

    def _drop_all(self, subjects: Mapping[Endpoint, Subject]) -> None:
        for subject in subjects.values():
            subject.due = inf
            self._call_off(subject)

    def _call_off(self, subject: Subject) -> None:
        visit, subject.visit = subject.visit, None
        self.running.discard(subject)
        if visit is not None:
            visit.request.cancel()

    # When

    def _await(self, subject: Subject, due: float) -> None:
        self._number += 1
        subject.due = due
        heappush(self._heap, (due, self._number, subject))

    def begin_due(self, now: float) -> float:
        """Begin what is due, as far as there is room. Returns when to call again at the latest."""
        if now >= self._look_at:
            self._look(now)
        while self._heap:
            due, _, subject = self._heap[0]
            is_true = due == subject.due and subject.visit is None
            if is_true and due > now:
                return min(due, self._look_at)
            if is_true and len(self.running) >= MOST_AT_ONCE:
                self._full_at = now
                return self._look_at
            heappop(self._heap)
            if is_true:
                self._begin(subject, now)
        return self._look_at

    def _begin(self, subject: Subject, now: float) -> None:
        cluster = self._clusters().get(subject.upstream)
        if cluster is None:
            return  # the next look sees it
        if subject.due <= self._full_at:
            cluster.peers.checks_delayed += 1
        subject.begun = now
        visit = subject.visit = Visit(self._service, cluster, subject, self._on_end)
        self.running.add(subject)
        self._pulse.begin()
        visit.request.begin()

    def ended(self, message: CheckEnded) -> None:
        """One has ended, and is not called off meanwhile: take what it has shown, and plan the next one."""
        subject = message.subject
        if subject.visit is not message.visit:
            return
        subject.visit = None
        self.running.discard(subject)
        now = self._service.clock()
        self._await(subject, max(now, subject.begun + next_pause(subject.policy, self._service.rng)))
        cluster = self._clusters().get(subject.upstream)
        if cluster is not None:
            take(cluster, subject.endpoint, message.verdict, subject.policy, now)
            self._on_checked(subject.upstream, subject.endpoint, message.verdict)

    def close(self) -> None:
        """Ask nobody any more, and let go of what is under way."""
        for subjects in self._subjects.values():
            self._drop_all(subjects)
        self._pulse.end()

    def _is_any_under_way(self) -> bool:
        return bool(self.running)
