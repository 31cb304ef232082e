"""Breakers that act as one, in any weather: processes die and come, links break, messages are late, doubled, lost and
out of order. The breakers, the rules and the encoding are the real ones; time is virtual
(`tests/bench/fleet_model/world.py`).
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.core.snapshot import BreakerPolicy, WindowPolicy
from sidecar.core.transition import State
from tests.bench.fleet_model.world import KEY, Node, Weather, World

POLICY = BreakerPolicy(
    window=WindowPolicy(size=4.0),
    minimum_calls=6,
    consecutive_failures=3,
    open_seconds=1.0,
    max_open_seconds=4.0,
    half_open_max_wait_seconds=3.0,
)
TROUBLE_SECONDS = 8.0
PEACE_SECONDS = 1.0

MOMENTS = st.floats(0.0, TROUBLE_SECONDS, allow_nan=False)
PLACES = st.integers(0, 99)
EVENTS = st.one_of(
    st.tuples(st.just("cut"), MOMENTS, PLACES),
    st.tuples(st.just("mend"), MOMENTS, PLACES),
    st.tuples(st.just("die"), MOMENTS, PLACES),
    st.tuples(st.just("come"), MOMENTS, PLACES),
    st.tuples(st.just("flush"), MOMENTS, PLACES),
    st.tuples(st.just("fails"), MOMENTS, PLACES),
    st.tuples(st.just("fails for one"), MOMENTS, PLACES),
    st.tuples(st.just("is well"), MOMENTS, PLACES),
)


class Schedule:
    """Makes a world go through these events."""

    def __init__(self, world: World, size: int) -> None:
        self.world = world
        self.failing: set[str] = set()
        self.is_failing = False
        self.names = size
        world.is_well = lambda node, now: not self.is_failing and node.replica not in self.failing
        for number in range(size):
            self._start(world.add(f"r{number}"))
        world.set_replicas()

    def _start(self, node: Node) -> None:
        node.traffic(10.0, TROUBLE_SECONDS + 10.0)

    def _living(self, place: int) -> Node:
        living = [node for node in self.world.nodes if node.is_alive]
        return living[place % len(living)]

    def happen(self, kind: str, place: int) -> None:
        node = self._living(place)
        if kind == "cut" and node.is_linked:
            node.unlink()
        elif kind == "mend" and not node.is_linked:
            node.link()
        elif kind == "die" and sum(one.is_alive for one in self.world.nodes) > 2:
            node.die()
        elif kind == "come" and len(self.world.nodes) < 12:
            self.names += 1
            self._start(self.world.add(f"r{self.names}"))
            self.world.set_replicas()
        elif kind == "flush":
            self.world.flush()
        elif kind == "fails":
            self.is_failing = True
        elif kind == "fails for one":
            self.failing = {node.replica}
        elif kind == "is well":
            self.is_failing, self.failing = False, set()

    def peace(self) -> None:
        """Everybody is linked, and nothing is lost any more; the upstream stays as it is."""
        self.world.weather = Weather()
        for node in self.world.nodes:
            if node.is_alive and not node.is_linked:
                node.link()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    size=st.integers(2, 6),
    seed=st.integers(0, 10_000),
    most=st.integers(1, 3),
    weather=st.builds(
        Weather,
        lost=st.sampled_from([0.0, 0.1, 0.3]),
        doubled=st.sampled_from([0.0, 0.3]),
        late=st.sampled_from([0.0, 0.2]),
    ),
    events=st.lists(EVENTS, max_size=14),
)
def test_whatever_happens_probes_are_bounded_and_all_agree_when_peace_returns(
    size: int, seed: int, most: int, weather: Weather, events: list[tuple[str, float, int]]
) -> None:
    world = World(replace(POLICY, half_open_max_calls=most), seed=seed)
    schedule = Schedule(world, size)
    world.weather = weather
    for kind, moment, place in sorted(events, key=lambda event: event[1]):
        world.at(moment, lambda kind=kind, place=place: schedule.happen(kind, place))
    world.run(TROUBLE_SECONDS)
    schedule.peace()
    world.run(TROUBLE_SECONDS + weather.late_seconds + PEACE_SECONDS)
    _agree(world)
    assert world.counts.most_probes <= most
    world.run(TROUBLE_SECONDS + 10.0)
    assert world.lender.out(KEY, world.now + POLICY.half_open_max_wait_seconds) == 0


def _agree(world: World) -> None:
    """All that do not differ by their own evidence are in one state, but for the moment that a change takes."""
    for _ in range(4):
        if len(world.states()) <= 1:
            return
        world.run(world.now + 0.25)
    told = [(node.process, node.breaker, node.has_own_opinion) for node in world.nodes if node.is_alive]
    raise AssertionError(f"no agreement: {told}")


def test_the_states_that_are_compared_are_those_of_breakers_that_open() -> None:
    """The property would hold of breakers that do nothing."""
    world = World(POLICY)
    schedule = Schedule(world, 4)
    world.run(2.0)
    schedule.happen("fails", 0)
    world.run(3.0)
    assert world.states() == {State.OPEN}
    assert {node.has_own_opinion for node in world.nodes} == {False}
    schedule.happen("is well", 0)
    world.run(TROUBLE_SECONDS)
    assert world.states() == {State.CLOSED}
    assert world.counts.most_probes == 1
