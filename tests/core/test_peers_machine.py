"""Any sequence of outcomes, comings and goings keeps the promises of ejection."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.core.ejection.change import Health
from sidecar.core.ejection.peers import Peers
from sidecar.core.health import CheckEnd, CheckState, CheckVerdict
from sidecar.core.snapshot import EjectionPolicy, HealthCheckPolicy

CHECK = HealthCheckPolicy()


class Spot:
    def __init__(self) -> None:
        self.in_flight = 0
        self.begun_at = 0.0


class Endpoints(RuleBasedStateMachine):
    """A naive bookkeeper beside `Peers`: who is out since when, and for how long at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.next_name = 0
        self.spots: dict[int, Spot] = {}
        self.out_since: dict[int, float] = {}

    @initialize(
        share=st.sampled_from([0.0, 0.1, 0.34, 0.5, 1.0]),
        row=st.sampled_from([0, 1, 5]),
        count=st.integers(1, 8),
        slow=st.sampled_from([None, 3.0]),
    )
    def begins(self, share: float, row: int, count: int, slow: float | None) -> None:
        self.policy = EjectionPolicy(
            consecutive_failures=row,
            minimum_calls=4,
            slower_than_peers=slow,
            base_seconds=10.0,
            max_seconds=35.0,
            max_ejected=share,
        )
        self.peers = Peers("u", self.policy)
        for _ in range(count):
            self.comes()

    @rule()
    def comes(self) -> None:
        self._join(self.next_name)
        self.next_name += 1

    def _join(self, name: int) -> None:
        spot = self.spots[name] = Spot()
        self.peers.join(name, spot, self.now)

    @precondition(lambda self: self.spots)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.spots)))
        self.peers.leave(name, self.spots.pop(name), self.now)
        self.out_since.pop(name, None)

    @rule(data=st.data())
    def comes_back(self, data: st.DataObject) -> None:
        name = data.draw(st.integers(0, max(self.next_name - 1, 0)))
        if name not in self.spots:
            self._join(name)

    @precondition(lambda self: self.spots)
    @rule(data=st.data(), count=st.sampled_from([1, 5, 6]), seconds=st.sampled_from([0.01, 0.5]))
    def answers(self, data: st.DataObject, count: int, seconds: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.spots)))
        for _ in range(count):
            self.peers.succeeded(name, seconds, self.now)

    @precondition(lambda self: self.spots)
    @rule(data=st.data(), count=st.sampled_from([1, 4, 5, 25]))
    def endpoint_dies(self, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.spots)))
        for _ in range(count):
            self.peers.failed(name, "500", self.now)

    @precondition(lambda self: self.spots)
    @rule(data=st.data(), count=st.sampled_from([1, 2, 3]), end=st.sampled_from(CheckEnd))
    def is_checked(self, data: st.DataObject, count: int, end: CheckEnd) -> None:
        name = data.draw(st.sampled_from(sorted(self.spots)))
        for _ in range(count):
            self.peers.checked(name, CheckVerdict(end, "503"), CHECK, self.now)

    @rule(end=st.sampled_from([CheckEnd.PASSED, CheckEnd.FAILED]))
    def all_are_checked(self, end: CheckEnd) -> None:
        for name in self.spots:
            for _ in range(3):
                self.peers.checked(name, CheckVerdict(end, "503"), CHECK, self.now)

    @rule()
    def nobody_is_checked_any_more(self) -> None:
        self.peers.check_no_more(self.now)
        assert not self._those(Health.UNHEALTHY)

    @precondition(lambda self: self.spots)
    @rule()
    def all_is_well_at_last(self) -> None:
        """Nobody is locked out for ever: time and good answers bring back everybody whom checks do not keep out, and
        checks that pass the rest."""
        self.all_are_checked(CheckEnd.PASSED)
        self.time_goes_by(self.policy.max_seconds + 1.0)
        for name in self.spots:
            for _ in range(6):
                self.peers.succeeded(name, 0.01, self.now)
        assert len(self._those(Health.USABLE)) == len(self.spots)

    @rule()
    def all_die(self) -> None:
        for name in self.spots:
            for _ in range(5):
                self.peers.failed(name, "500", self.now)

    @rule(seconds=st.sampled_from([0.1, 5.0, 10.0, 36.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds
        self.peers.tick(self.now)

    @invariant()
    def no_more_are_ejected_than_may_be(self) -> None:
        if not hasattr(self, "peers"):
            return
        count, out = len(self.spots), self._those(Health.EJECTED)
        share = self.policy.max_ejected
        most = 0 if count < 2 or not share else max(int(share * count + 1e-9), 1)
        assert len(out) <= min(most, max(count - 1, 0))
        assert self.peers.ejected == len(out)
        assert self.peers.usable == len(self._those(Health.USABLE))
        assert self.peers.unhealthy == len(self._those(Health.UNHEALTHY))

    @invariant()
    def whoever_is_unhealthy_has_failed_its_last_checks(self) -> None:
        for name in self._those(Health.UNHEALTHY) if hasattr(self, "peers") else ():
            record = self.peers.members[name].check
            assert record is not None
            assert record.state is CheckState.UNHEALTHY
            assert record.good < CHECK.healthy

    @invariant()
    def nobody_is_out_for_longer_than_max(self) -> None:
        if not hasattr(self, "peers"):
            return
        out = self._those(Health.EJECTED)
        self.out_since = {name: self.out_since.get(name, self.now) for name in out}
        for name, since in self.out_since.items():
            standing = self.peers.members[name]
            assert standing.until > self.now
            assert standing.until - since <= self.policy.max_seconds
            assert self.peers.next_due() <= standing.until

    @invariant()
    def something_of_the_upstream_always_counts(self) -> None:
        if hasattr(self, "peers") and self.spots:
            assert any(self.peers.counts(name) for name in self.spots)

    def _those(self, health: Health) -> list[int]:
        return [name for name in self.spots if self.peers.members[name].health is health]


TestEndpoints = Endpoints.TestCase
TestEndpoints.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
