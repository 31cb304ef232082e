"""Who takes over, whatever becomes of endpoints and breaker: the load comes home in the end, and does not flap."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.core.breaker import Breaker
from sidecar.core.breaker.permit import BreakerRefusal
from sidecar.core.ejection.change import Health
from sidecar.core.ejection.peers import Peers
from sidecar.core.failover import Failover, FailoverPhase
from sidecar.core.health import CheckEnd, CheckVerdict
from sidecar.core.outcome import Kind, Outcome
from sidecar.core.snapshot import (
    BreakerMode,
    BreakerPolicy,
    EjectionPolicy,
    FailoverPolicy,
    HealthCheckPolicy,
)
from sidecar.forwarding.standby import Detour, Standby, supply_of
from sidecar.upstream.cluster import Cluster
from tests.support.by_hand import HandLoop, hand_cluster

FAILOVER = FailoverPolicy(("dr",))
CHECK = HealthCheckPolicy()
STEP_SECONDS = 0.5
"""From one request to the next."""


@dataclass
class Spot:
    in_flight: int = 0
    begun_at: float = 0.0


@dataclass(eq=False)
class Upstream:
    """As one route sees it: real endpoints and a real breaker, without sockets."""

    name: str
    count: int
    rng: random.Random
    mode: BreakerMode = BreakerMode.ENFORCE
    most: float = 0.5
    """Of the endpoints, that may be ejected."""
    cluster: Cluster = field(init=False)
    breaker: Breaker = field(init=False)
    well: set[int] = field(init=False)

    def __post_init__(self) -> None:
        peers = Peers(self.name, EjectionPolicy(max_ejected=self.most))
        for number in range(self.count):
            peers.join(number, Spot(), 0.0)
        self.cluster = hand_cluster(HandLoop())
        self.cluster.name, self.cluster.peers = self.name, peers
        breaker = BreakerPolicy(mode=self.mode, warm_up_seconds=0.0)
        self.breaker = Breaker("app", self.name, breaker, self.rng, 0.0, peers=peers)
        self.well = set(range(self.count))

    @property
    def peers(self) -> Peers:
        return self.cluster.peers

    def pick(self) -> int:
        by: dict[Health, list[int]] = {}
        for number in range(self.count):
            by.setdefault(self.peers.members[number].health, []).append(number)
        spared = by.get(Health.SPARED, [])
        if spared and by.get(Health.USABLE) and self.rng.random() < 0.02:
            return self.rng.choice(spared)
        return self.rng.choice(by.get(Health.USABLE) or spared or list(range(self.count)))

    def serve(self, now: float) -> bool | None:
        """One request: whether it went well; None: the breaker has refused it."""
        answer = self.breaker.admit(now)
        if isinstance(answer, BreakerRefusal):
            return None
        permit, endpoint = answer.own(), self.pick()
        permit.sent(endpoint, now)
        is_good = endpoint in self.well
        permit.judge(Outcome(Kind.ANSWERED, 200 if is_good else 500), now)
        permit.close(now)
        self.peers.news.clear()
        return is_good

    def check(self, now: float) -> None:
        for number in range(self.count):
            end = CheckEnd.PASSED if number in self.well else CheckEnd.FAILED
            self.peers.checked(number, CheckVerdict(end, "503"), CHECK, now)


class Route:
    """Requests to an upstream from which another one takes over."""

    def __init__(
        self, count: int, others: int, seed: int, mode: BreakerMode = BreakerMode.ENFORCE, most: float = 0.5
    ) -> None:
        self.rng = random.Random(seed)
        self.home = Upstream("home", count, self.rng, mode, most)
        self.other = Upstream("dr", others, self.rng)
        self.standby: Standby[Upstream] = Standby(Failover(FAILOVER, 0.0), [self.other])
        self.now = 0.0
        self.changes: list[tuple[float, FailoverPhase]] = []
        self.bad = 0

    def look(self) -> None:
        change = self.standby.look(self.home, self.now)
        if change is not None:
            self.changes.append((self.now, change.phase))

    def request(self) -> str:
        """As `Race` does it. Returns who has served it."""
        self.look()
        standby, home = self.standby, self.home
        detour = Detour(home, standby)
        where: Upstream | None = home
        is_trial = False
        if not standby.keeps(self.rng):
            is_trial = standby.takes_trial(home, self.now)
            if not is_trial:
                where = standby.taker(supply_of(home), self.rng) or home
        while where is not None:
            went_well = where.serve(self.now)
            if went_well or (went_well is False and not is_trial):
                self.bad += not went_well
                return where.name
            is_trial = False
            where = detour.next(where, self.rng)
        self.bad += 1
        return ""

    @property
    def is_well(self) -> bool:
        """The load is at home, and all endpoints are used."""
        healths = {standing.health for standing in self.home.peers.members.values()}
        return self.standby.failover.phase is FailoverPhase.HOME and healths == {Health.USABLE}

    def run(self, seconds: float, *, is_checked: bool) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += STEP_SECONDS
            self.home.peers.tick(self.now)
            self.other.peers.tick(self.now)
            if is_checked and self.now % 5.0 < STEP_SECONDS:
                self.home.check(self.now)
            self.request()


MOST_RUNS = 100
stories = st.lists(st.tuples(st.sets(st.integers(0, 5)), st.sampled_from([0.5, 4.0, 20.0, 70.0])), max_size=6)


@settings(max_examples=60, deadline=None)
@example(3, [(set(), 70.0)], False, 1, BreakerMode.METRICS_ONLY, 0.0)
@given(
    st.integers(1, 6),
    stories,
    st.booleans(),
    st.integers(0, 1000),
    st.sampled_from([BreakerMode.ENFORCE, BreakerMode.METRICS_ONLY]),
    st.sampled_from([0.0, 0.5]),
)
def test_the_load_comes_home_when_all_is_well_whatever_was_before(
    count: int,
    story: list[tuple[set[int], float]],
    is_checked: bool,
    seed: int,
    mode: BreakerMode,
    most: float,
) -> None:
    """Also where no breaker ever opens, so that endpoints alone say it, and where all of them are spared."""
    route = Route(count, 6, seed, mode, most)
    for well, seconds in story:
        route.home.well = well & set(range(count))
        route.run(seconds, is_checked=is_checked)
    route.home.well = set(range(count))
    # Spared endpoints get 2 % of two requests a second: it may take long, and it depends on chance how long.
    for _ in range(MOST_RUNS):
        route.run(100.0, is_checked=is_checked)
        if route.is_well:
            break
    assert route.standby.failover.phase is FailoverPhase.HOME
    assert [route.request() for _ in range(20)] == ["home"] * 20
    assert {standing.health for standing in route.home.peers.members.values()} == {Health.USABLE}
    for (left, phase), (back, _) in zip(route.changes, route.changes[1:], strict=False):
        assert phase is FailoverPhase.HOME or back - left >= FAILOVER.back.seconds


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("period", [3.0, 10.0, 25.0])
def test_an_upstream_that_flaps_gets_its_load_back_once_it_is_calm(seed: int, period: float) -> None:
    route = Route(4, 4, seed)
    for turn in range(40):
        route.home.well = set() if turn % 2 == 0 else set(range(4))
        route.run(period, is_checked=True)
    # Checks each 5 s do not see all of it; but it takes a minute to come home, and a few requests to go again.
    # Half of all requests would fail without the other.
    assert len(route.changes) <= 1 + 2 * route.now / 60.0
    assert route.bad <= max(0.1 * route.now / STEP_SECONDS, 12)
    route.home.well = set(range(4))
    route.run(400.0, is_checked=True)
    assert route.standby.failover.phase is FailoverPhase.HOME
    assert [route.request() for _ in range(20)] == ["home"] * 20


def test_who_asks_for_the_others_never_pays() -> None:
    route = Route(3, 3, 1)
    route.home.well = set()
    route.run(20.0, is_checked=False)
    bad = route.bad
    assert bad > 0
    route.run(600.0, is_checked=False)
    assert route.bad == bad
    assert route.standby.trials > 5


def test_where_nobody_else_has_more_everything_stays() -> None:
    route = Route(6, 1, 1)
    route.home.well = {0, 1}
    route.run(120.0, is_checked=True)
    assert route.standby.moved == {"dr": 0}
