"""What breakers of many processes do together, rule by rule; time is virtual (`tests/bench/fleet_model/world.py`)."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from sidecar.core.breaker import Breaker, Override
from sidecar.core.fleet import Fleet, Reach, fleet, member, merging
from sidecar.core.fleet.member import INTERVAL_SECONDS, SPREADS, FleetMember, scale_of
from sidecar.core.fleet.messages import (
    BreakerReport,
    Decision,
    FleetBatch,
    FleetOrder,
    PermitAnswer,
    PermitAsk,
)
from sidecar.core.fleet.relay import Relay
from sidecar.core.snapshot import BreakerPolicy, CheckPolicy
from sidecar.core.transition import State, TransitionReason
from tests.bench.fleet_model.world import BAD, GOOD, KEY, Node, World

POLICY = BreakerPolicy()


def world_of(size: int, policy: BreakerPolicy = POLICY, **options: bool) -> World:
    world = World(policy, **options)
    for number in range(size):
        world.add(f"r{number}")
    world.set_replicas()
    return world


def states(world: World) -> list[str]:
    return [node.breaker.state.value for node in world.nodes if node.is_alive]


def fails_for(world: World, *nodes: Node, until: float = 1e9) -> None:
    world.is_well = lambda node, now: node not in nodes or now >= until


def calls(world: World, node: Node, count: int, every: float = 0.001) -> None:
    for _ in range(count):
        node.call()
        world.run(world.now + every)


def traffic(world: World, rate: float, until: float) -> None:
    for node in world.nodes:
        node.traffic(rate, until)


def test_what_one_sees_first_protects_all_within_200_ms_and_one_probe_closes_all() -> None:
    world = world_of(3)
    fails_for(world, *world.nodes, until=3.0)
    calls(world, world.nodes[0], 5)
    world.run(0.2)
    assert states(world) == ["open", "open", "open"]
    told = world.nodes[2].fleet.status_of(KEY, world.now)
    assert told is not None
    assert (told.failing, told.callers, told.state) == (1, 1, State.OPEN)
    traffic(world, 10.0, 8.0)
    world.run(8.0)
    assert states(world) == ["closed", "closed", "closed"]
    assert world.counts.probes == 1


def test_a_replica_that_is_cut_off_opens_alone_and_the_others_serve() -> None:
    world = world_of(10)
    fails_for(world, world.nodes[0])
    traffic(world, 10.0, 20.0)
    world.run(20.0)
    assert states(world) == ["open"] + 9 * ["closed"]
    assert world.counts.wrongly_refused == 0
    assert world.nodes[0].has_own_opinion


def test_a_row_of_one_replica_says_nothing_where_others_have_had_successes() -> None:
    world = world_of(3)
    fails_for(world, world.nodes[0])
    calls(world, world.nodes[1], 2)
    world.run(1.0)
    calls(world, world.nodes[0], 5)
    world.run(3.0)
    assert states(world) == ["open", "closed", "closed"]


def test_half_of_the_fleet_that_is_cut_off_opens_nobody_who_has_evidence() -> None:
    world = world_of(12)
    fails_for(world, *world.nodes[:6], until=1e9)
    world.is_well = lambda node, now, half=set(world.nodes[:6]): node not in half or now < 5.0
    traffic(world, 10.0, 20.0)
    world.run(20.0)
    assert states(world) == 6 * ["open"] + 6 * ["closed"]
    assert world.counts.wrongly_refused == 0
    assert [node.fleet.is_dissenting(KEY) for node in world.nodes] == 6 * [False] + 6 * [True]
    assert not world.nodes[6].fleet.is_dissenting("another")


def test_two_that_refuse_open_those_without_evidence_where_few_call() -> None:
    world = world_of(9)
    fails_for(world, *world.nodes[:3])
    for failing in range(2):
        for _ in range(5):  # a success of anybody between any two, so that there is no row of all
            assert states(world)[3:] == 6 * ["closed"]
            calls(world, world.nodes[failing], 1, every=0.3)
            calls(world, world.nodes[3 + failing], 1, every=0.3)
    assert states(world) == 9 * ["open"]


def test_a_sudden_outage_costs_those_who_were_well_one_failure_each() -> None:
    world = world_of(10)
    world.is_well = lambda node, now: now < 8.0
    traffic(world, 10.0, 10.0)
    world.run(8.0)
    world.run(10.0)
    assert states(world) == 10 * ["open"]
    assert world.counts.failed < 40  # ten that are alone: 50 and more
    assert {node.breaker.history[0].reason for node in world.nodes} == {TransitionReason.PEERS}


@pytest.mark.parametrize("rate", [0.5, 10.0])
def test_one_error_in_ten_opens_nobody(rate: float) -> None:
    world = world_of(10)
    world.is_well = lambda node, now: world.rng.random() >= 0.1
    traffic(world, rate, 15.0)
    world.run(15.0)
    assert world.counts.refused == 0


def test_a_failed_probe_doubles_the_wait_of_all_when_a_second_replica_s_fails_too() -> None:
    world = world_of(4, reads_at_once=True)
    fails_for(world, *world.nodes)
    traffic(world, 10.0, 9.0)
    world.run(9.0)
    reasons = [(transition.reason, transition.to_state) for _, _, transition in world.counts.transitions]
    assert reasons.count((TransitionReason.PROBE_FAILED, State.OPEN)) == 2
    assert world.counts.probes == 2
    waits = {round(node.breaker.machine.waits.seconds, 2) for node in world.nodes}
    assert len(waits) == 1
    assert min(waits) >= 10.0


def test_a_failed_probe_of_one_and_a_good_one_of_another_close_all_but_the_first() -> None:
    world = world_of(4, reads_at_once=True)
    fails_for(world, *world.nodes)
    traffic(world, 10.0, 30.0)
    world.run(4.0)
    assert states(world) == 4 * ["open"]
    only: list[Node] = []

    def is_well(node: Node, now: float) -> bool:
        if node.breaker.machine.probes_in_flight and not only:
            only.append(node)
        return node not in only

    world.is_well = is_well
    world.run(7.0)
    assert states(world).count("open") == 1
    assert only[0].breaker.state is State.OPEN
    assert only[0].has_own_opinion
    assert only[0].breaker.machine.waits.seconds < 6.0


def test_where_nobody_else_wants_a_probe_one_failed_one_doubles_the_wait() -> None:
    world = world_of(2)
    fails_for(world, *world.nodes)
    world.nodes[0].traffic(10.0, 9.0)
    world.run(9.0)
    assert world.counts.probes == 1
    assert world.nodes[1].breaker.machine.waits.seconds >= 10.0


def test_a_new_process_begins_with_what_its_peers_know_and_a_lost_store_closes_nothing() -> None:
    world = world_of(3)
    fails_for(world, *world.nodes)
    calls(world, world.nodes[0], 5)
    world.run(1.0)
    assert world.add("r3").breaker.state is State.OPEN
    world.flush()
    world.run(2.5)
    assert states(world) == 4 * ["open"]
    assert world.add("r4").breaker.state is State.OPEN
    left = {round(node.breaker.machine.waits.until, 1) for node in world.nodes}
    assert max(left) - min(left) <= 0.1


def test_two_versions_of_a_policy_do_not_hear_each_other() -> None:
    world = world_of(2)
    other = Fleet("new", "r9")
    breaker = Breaker("shop", "payments", POLICY, world.rng, 0.0)
    other.join("shop/payments@fedcba9876543210", breaker, 0.0)
    other.up(Reach.FLEET, 0.0)
    fails_for(world, *world.nodes)
    calls(world, world.nodes[0], 5)
    world.run(0.5)
    for item, _, _ in world.kept.values():
        assert other.receive(FleetBatch("r0-0", "r0", (item,)), world.now) == ()
    status = other.status_of("shop/payments@fedcba9876543210", world.now)
    assert breaker.state is State.CLOSED
    assert status is not None
    assert status.versions == 2


def test_an_override_for_all_reaches_all_and_who_comes_later_and_ends_for_all() -> None:
    world = world_of(3)
    world.nodes[0].fleet.order(KEY, Override.OPEN, 0.0, 600.0, "ada@bastion")
    world.run(0.3)
    assert states(world) == 3 * ["forced_open"]
    late = world.add("r3")
    assert late.breaker.state is State.FORCED_OPEN
    order = late.breaker.order_at(world.now)
    assert order is not None
    assert order.by == "ada@bastion"
    assert order.until == pytest.approx(600.0, abs=0.1)
    late.fleet.order(KEY, Override.AUTO, world.now)
    world.run(1.0)
    assert states(world) == 4 * ["closed"]
    with pytest.raises(KeyError):
        late.fleet.order("nobody", Override.AUTO, world.now)


def test_an_override_that_was_given_alone_is_told_when_the_link_is_back() -> None:
    world = world_of(2)
    world.nodes[0].unlink()
    world.nodes[0].fleet.order(KEY, Override.CLOSE, world.now)
    world.run(1.0)
    assert states(world) == ["forced_closed", "closed"]
    world.nodes[0].link()
    world.run(2.0)
    assert states(world) == 2 * ["forced_closed"]


def test_who_is_alone_does_what_it_always_did_and_says_so() -> None:
    world = world_of(2)
    node = world.nodes[0]
    node.unlink()
    fails_for(world, node, until=4.0)
    calls(world, node, 5)
    world.run(0.1)
    assert node.breaker.state is State.OPEN
    world.run(5.5)
    node.call()
    world.run(6.0)
    assert node.breaker.state is State.CLOSED
    assert node.fleet.status(world.now).is_alone
    assert node.fleet.tick(world.now).batches == ()
    assert world.nodes[1].breaker.history == ()


def test_a_check_by_the_sidecar_itself_needs_a_permit_too() -> None:
    world = world_of(2, replace(POLICY, half_open_check=CheckPolicy("/healthz")))
    fails_for(world, *world.nodes)
    calls(world, world.nodes[0], 5)
    world.run(6.0)
    breaker = world.nodes[0].breaker
    assert not breaker.admit_check(world.now).is_admitted
    assert world.now < breaker.next_check(world.now) < world.now + 1.0
    world.run(6.3)
    assert breaker.admit_check(world.now).is_admitted


# The workers of one pod.


class Pod:
    """Workers that hear each other by a relay, and reach nobody else."""

    def __init__(self, size: int) -> None:
        self.now = 0.0
        self.world = World(POLICY, is_shared=False)
        self.relay = Relay("control", "pod")
        self.fleets: list[Fleet] = []
        self.breakers: list[Breaker] = []
        for number in range(size):
            self.start(f"w{number}")

    def start(self, process: str) -> None:
        breaker = Breaker("shop", "payments", POLICY, self.world.rng, self.now)
        worker = Fleet(process, "pod")
        worker.join(KEY, breaker, self.now)
        for batch in self.relay.joined(self.now):
            worker.receive(batch, self.now)
        worker.up(Reach.POD, self.now)
        self.fleets.append(worker)
        self.breakers.append(breaker)

    def call(self, worker: int, *, is_good: bool) -> bool:
        """Whether it was let in."""
        answer = self.breakers[worker].admit(self.now)
        if answer.is_admitted:
            permit = answer.own()
            permit.sent(None, self.now)
            permit.judge(GOOD if is_good else BAD, self.now)
            permit.close(self.now)
        self.pass_on()
        return answer.is_admitted

    def pass_on(self, seconds: float = 0.0) -> None:
        self.now += seconds
        for _ in range(8):
            for worker in self.fleets:
                for batch in worker.tick(self.now).batches:
                    relayed = self.relay.heard(batch, self.now)
                    for other in self.fleets:
                        for one in relayed.back if other is worker else relayed.others:
                            other.receive(one, self.now)
            self.now += 0.002


def test_failures_that_are_spread_over_the_workers_open_the_pod() -> None:
    pod = Pod(4)
    for worker in (0, 1, 2, 3, 0):
        assert pod.call(worker, is_good=False)
        pod.pass_on(0.2)
    assert [breaker.state for breaker in pod.breakers] == 4 * [State.OPEN]


def test_a_success_of_any_worker_ends_the_row_of_all() -> None:
    pod = Pod(3)
    for worker in (0, 1, 0, 1):
        pod.call(worker, is_good=False)
        pod.pass_on(0.2)
    pod.call(2, is_good=True)
    pod.pass_on(0.2)
    pod.call(0, is_good=False)
    pod.pass_on(0.2)
    assert [breaker.state for breaker in pod.breakers] == 3 * [State.CLOSED]


def test_one_worker_probes_for_the_pod_and_one_that_starts_later_knows_all() -> None:
    pod = Pod(3)
    for _ in range(5):
        pod.call(0, is_good=False)
    assert [breaker.state for breaker in pod.breakers] == 3 * [State.OPEN]
    pod.start("w3")
    assert pod.breakers[3].state is State.OPEN
    pod.pass_on(5.2)
    assert not any(pod.call(worker, is_good=True) for worker in range(4))
    pod.pass_on(0.3)
    let_in = [pod.call(worker, is_good=True) for worker in range(4)]
    assert sum(let_in) >= 1
    assert [breaker.state for breaker in pod.breakers] == 4 * [State.CLOSED]
    assert sum(TransitionReason.WAIT_ELAPSED in reasons(breaker) for breaker in pod.breakers) == 1


def test_what_workers_saw_long_ago_is_nothing_of_now_to_one_that_starts_later() -> None:
    pod = Pod(2)
    for worker in range(2):
        for number in range(10):
            pod.call(worker, is_good=number % 2 == 0)
            pod.pass_on(0.1)
        pod.pass_on(20.0)
    pod.start("w2")
    for number in range(3):
        pod.call(2, is_good=number == 0)
        pod.pass_on(0.2)
    assert [breaker.state for breaker in pod.breakers] == 3 * [State.CLOSED]


def reasons(breaker: Breaker) -> set[TransitionReason]:
    return {transition.reason for transition in breaker.history}


def test_the_workers_of_one_pod_are_one_replica() -> None:
    """Two workers that refuse are no quorum, and their row is that of one replica."""
    world = World(POLICY)
    pair = world.add("r0", has_siblings=True), world.add("r0", has_siblings=True)
    others = [world.add(f"r{number}") for number in range(1, 4)]
    world.set_replicas()
    fails_for(world, *pair)
    for node in others:
        calls(world, node, 3)
    world.run(1.0)
    for node in pair:
        calls(world, node, 5)
    world.run(3.0)
    assert states(world) == ["open", "open", "closed", "closed", "closed"]


def test_a_relay_tells_a_worker_that_starts_later_each_report_once_and_the_time_that_is_left() -> None:
    relay = Relay("control", "pod")
    pod_decision = Decision(KEY, 0, 1, State.OPEN, "w0", "pod", 5.0, 5.0)
    report = BreakerReport(KEY, "w0", "pod", 1, 0, 1, ((5, 5, 0),))
    later = replace(report, revision=2)
    ask = PermitAsk(KEY, "w0", 1, 1, 10.0, 1)
    relayed = relay.heard(FleetBatch("w0", "pod", (pod_decision, report, later, ask)), 0.0)
    assert relayed.others == (FleetBatch("w0", "pod", (pod_decision, report, later)),)
    assert relayed.back == (FleetBatch("control", "pod", (PermitAnswer(KEY, "w0", 1, 1),)),)
    assert relay.joined(2.0)[0].items == (replace(pod_decision, left_seconds=3.0), later)
    decision = Decision(KEY, 1, 0, State.OPEN, "w0", "pod", 5.0, 5.0)
    relay.heard(FleetBatch("w0", "pod", (decision,)), 0.0)
    assert relay.joined(2.0)[0].items == (replace(decision, left_seconds=3.0), later)


# Limits.


def test_numbers_that_no_fleet_reaches_are_not_believed() -> None:
    world = world_of(1)
    node = world.nodes[0]
    most = 2**53
    report = BreakerReport(KEY, "p", "o", most, most, most, (), (most, 5), (most, 5))
    decision = Decision(KEY, most, 0, State.OPEN, "p", "o", 5.0, 5.0)
    order = FleetOrder(KEY, most, "p", Override.OPEN, None, "")
    node.fleet.receive(FleetBatch("p", "o", (report, decision, order)), 0.0)
    fails_for(world, node)
    calls(world, node, 5)
    world.run(1.0)
    assert node.breaker.state is State.OPEN
    (held,) = [one.item for one in node.fleet.held(world.now)]
    assert isinstance(held, Decision)
    assert held.fleet == 1


def test_what_is_kept_of_others_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MAX_REPORTS", 3)
    world = world_of(1)
    node = world.nodes[0]
    for number in range(5):
        report = BreakerReport(KEY, f"p{number}", f"o{number}", 1, 0, 0, ((1, 0, 0),))
        node.fleet.receive(FleetBatch(f"p{number}", f"o{number}", (report,)), 0.0)
    status = node.fleet.status(0.0)
    assert (status.breakers[0].callers, status.counts.unheard) == (3, 2)


def test_breakers_beyond_the_limit_are_alone_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "MAX_SHARED", 1)
    world = world_of(1)
    node = world.nodes[0]
    other = Breaker("shop", "other", POLICY, world.rng, 0.0)
    assert not node.fleet.join("shop/other@1", other, 0.0)
    assert other.machine.sharing is None
    assert node.fleet.status(0.0).counts.unshared == 1
    assert node.fleet.join(KEY, node.breaker, 0.0)
    with pytest.raises(ValueError, match="two breakers have the key"):
        node.fleet.join(KEY, other, 0.0)
    node.fleet.leave(KEY, 0.0)
    assert node.breaker.machine.sharing is None
    assert node.fleet.join("shop/other@1", other, 0.0)


def test_however_many_are_said_to_be_there_a_replica_speaks_at_least_each_ten_seconds() -> None:
    fleet = Fleet("process", "replica")
    assert fleet.interval_seconds == 0.1
    for count, seconds in ((1_000, 1.0), (10_000, 10.0), (10**9, 10.0)):
        fleet.set_replicas(count)
        assert fleet.interval_seconds == pytest.approx(seconds)


def turns(count: int) -> list[float]:
    rng = random.Random(1)
    members = [FleetMember(f"{rng.getrandbits(128):x}", "", has_siblings=False) for _ in range(count)]
    for one in members:
        one.replicas = count
    return sorted(one.turn_seconds(KEY) for one in members)


def test_of_many_that_know_the_same_a_few_have_their_turn_before_the_others_have_heard_it() -> None:
    for count, few in ((100, 10), (1_000, 20), (10_000, 40)):
        found, hearing = turns(count), scale_of(count) * INTERVAL_SECONDS
        assert found[0] <= hearing / 10.0, "nobody waits for the first"
        assert sum(one <= found[0] + hearing for one in found) <= few
        assert found[-1] <= SPREADS * hearing
    assert turns(1) == [0.0]


class Heard(World):
    """Remembers the decisions that were said."""

    said: list[Decision]

    def write(self, sender: Node, batch: FleetBatch) -> None:
        self.said += [item for item in batch.items if isinstance(item, Decision)]
        super().write(sender, batch)


def many(count: int) -> Heard:
    world = Heard(POLICY)
    world.said = []
    for number in range(count):
        world.add(f"r{number}")
    world.set_replicas()
    world.run(1.0)
    return world


def test_what_a_store_has_lost_is_said_again_by_few_of_many() -> None:
    world = many(100)
    world.is_well = lambda node, now: False
    calls(world, world.nodes[0], 5)
    world.run(2.0)
    assert states(world) == 100 * ["open"]
    world.said.clear()
    world.flush()
    world.run(4.0)
    assert 0 < len(world.said) < 30
    assert world.add("late").breaker.state is State.OPEN


def test_of_many_that_come_to_the_same_decision_few_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "SAMPLED", 10)
    world = many(100)
    traffic(world, 2.0, 6.0)
    world.run(4.0)
    world.is_well = lambda node, now: False
    world.run(6.0)
    assert states(world) == 100 * ["open"]
    assert 0 < sum(one.fleet == 1 and one.state is State.OPEN for one in world.said) < 30


@pytest.mark.parametrize("has_siblings", [True, False])
def test_what_a_pod_decides_for_itself_is_told_to_its_own_processes_alone(has_siblings: bool) -> None:
    world = Heard(POLICY)
    world.said = []
    node = world.add("r0", has_siblings=has_siblings)
    world.add("r1")
    world.set_replicas()
    fails_for(world, node)
    calls(world, world.nodes[1], 2)
    world.run(1.0)
    calls(world, node, 5)
    world.run(2.0)
    assert states(world) == ["open", "closed"]
    assert any(one.pod for one in world.said) is has_siblings
