"""The choice of an endpoint: shares by weight, by what is thought of endpoints, and by a request's key."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.balance import LOAD_BOUND
from sidecar.core.candidates import REDRAWS
from sidecar.core.ejection.change import Health
from sidecar.core.ring import key_of
from sidecar.core.snapshot import Balancing, EjectionPolicy, Endpoint
from tests.support.places import Choice, Place, endpoints

POLICIES = list(Balancing)
BY_LOAD = [Balancing.LEAST_REQUEST, Balancing.PEAK_EWMA, Balancing.ROUND_ROBIN]


def weighted(*weights: int) -> list[Endpoint]:
    return [Endpoint(f"10.0.0.{number}", 80, weight=weight) for number, weight in enumerate(weights)]


def counts(choice: Choice, picks: int = 4_000) -> list[float]:
    found = Counter(choice.pick() for _ in range(picks))
    return [found[place] / picks for place in choice.places]


@pytest.mark.parametrize("policy", BY_LOAD)
def test_shares_follow_the_weights_while_nothing_is_in_flight(policy: Balancing) -> None:
    assert counts(Choice(weighted(1, 3, 6), policy)) == pytest.approx([0.1, 0.3, 0.6], abs=0.04)


@pytest.mark.parametrize("policy", [Balancing.LEAST_REQUEST, Balancing.PEAK_EWMA])
def test_a_busy_upstream_keeps_to_its_weights_too(policy: Balancing) -> None:
    choice = Choice(weighted(1, 3, 6), policy)
    for place in choice.places:
        place.standing.ewma = 0.1
    for _ in range(1_000):
        choice.pick().in_flight += 1
    assert [place.in_flight for place in choice.places] == pytest.approx([100, 300, 600], abs=40)


def test_one_slow_answer_is_forgotten_by_time_though_nobody_asks() -> None:
    choice = Choice(weighted(2, 2), Balancing.PEAK_EWMA)
    slow, quick = choice.places
    begin = choice.now
    slow.standing.take_time(2.0, begin)
    quick.standing.take_time(0.002, begin)
    picked: list[Place] = []
    while len(picked) < 1_200 and slow not in picked:
        choice.now += 0.1
        picked.append(choice.pick())
        picked[-1].standing.take_time(0.002, choice.now)
    assert choice.now - begin == pytest.approx(69.0, abs=10.0), "10 s times ln 1000"


def test_turns_by_weight_are_spread_evenly() -> None:
    choice = Choice(weighted(1, 1, 2), Balancing.ROUND_ROBIN)
    turns = [choice.places.index(choice.pick()) for _ in range(400)]
    assert [turns.count(number) for number in range(3)] == pytest.approx([100, 100, 200], abs=1)
    assert all(Counter(turns[at : at + 8])[2] in (3, 4, 5) for at in range(390))


@pytest.mark.parametrize("policy", POLICIES)
def test_an_endpoint_of_weight_0_is_chosen_only_without_another(policy: Balancing) -> None:
    choice = Choice(weighted(0, 1, 2), policy)
    key = key_of(b"a")
    assert choice.places[0] not in {choice.pick(key=key + number) for number in range(500)}
    choice.set_health(lambda one: Health.USABLE if one is choice.places[0] else Health.EJECTED)
    assert {choice.pick(key=key) for _ in range(20)} == {choice.places[0]}


@pytest.mark.parametrize("policy", POLICIES)
def test_priorities_take_over_by_degrees(policy: Balancing) -> None:
    choice = Choice([*endpoints(4), *[Endpoint(f"10.9.0.{n}", 80, priority=1) for n in range(4)]], policy)
    later = set(choice.places[4:])
    keys = [key_of(b"%d" % number) for number in range(2_000)]

    def share_of_later() -> float:
        return sum(choice.pick(key=key) in later for key in keys) / len(keys)

    assert share_of_later() == 0.0
    choice.set_health(lambda one: Health.EJECTED if one in choice.places[:2] else Health.USABLE)
    assert share_of_later() == pytest.approx(0.3, abs=0.04)
    choice.set_health(lambda one: Health.USABLE if one in later else Health.EJECTED)
    assert share_of_later() == 1.0


def coming_back(choice: Choice, *places: Place) -> None:
    for place in places:
        place.standing.back_at, place.standing.slow_seconds = choice.now, 10.0
    choice.renew()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("count", [1, 3])
def test_a_priority_that_comes_back_as_a_whole_takes_over_by_degrees(policy: Balancing, count: int) -> None:
    choice = Choice([*endpoints(count), *[Endpoint(f"10.9.0.{n}", 80, priority=1) for n in range(4)]], policy)
    back = choice.places[:count]
    keys = [key_of(b"%d" % number) for number in range(800)]

    def share() -> float:
        choice.renew()
        return sum(choice.pick(key=key) in back for key in keys) / len(keys)

    coming_back(choice, *back)
    assert share() == pytest.approx(0.1, abs=0.06)
    choice.now += 5.0
    assert share() == pytest.approx(0.55, abs=0.1)
    choice.now += 5.0
    assert share() == 1.0


def test_our_own_zone_is_preferred() -> None:
    own, other = endpoints(3, zones=("a",)), [Endpoint(f"10.9.0.{n}", 80, zones=("b",)) for n in range(3)]
    assert sum(counts(Choice([*own, *other], zone="a"))[:3]) == 1.0
    assert sum(counts(Choice([*own, *other]))[:3]) == pytest.approx(0.5, abs=0.05)


# What must not be chosen again


@st.composite
def situations(draw: st.DrawFn) -> tuple[Choice, list[Place], int | None]:
    count = draw(st.integers(1, 24))
    found = [
        Endpoint(
            f"10.0.0.{number}", 80, weight=draw(st.integers(0, 5)), priority=draw(st.sampled_from([0, 0, 1]))
        )
        for number in range(count)
    ]
    choice = Choice(found, draw(st.sampled_from(POLICIES)), seed=draw(st.integers(0, 99)))
    for place in choice.places:
        place.in_flight = draw(st.integers(0, 3))
    healths = {place: draw(st.sampled_from(Health)) for place in choice.places}
    choice.set_health(lambda one: healths[one])
    avoid = draw(st.lists(st.sampled_from(choice.places), unique=True, max_size=count))
    return choice, avoid, draw(st.none() | st.integers(0, 2**64 - 1))


@settings(deadline=None, max_examples=400)
@given(situations())
def test_a_retry_never_repeats_an_endpoint_while_another_is_in_the_choice(
    situation: tuple[Choice, list[Place], int | None],
) -> None:
    choice, avoid, key = situation
    # Everybody that picks without `avoid` may give, spared ones and reserves of the same groups included.
    possible = {group_place for group in choice.balancer._groups for group_place in group.places}
    if choice.balancer.spared is not None:
        possible |= set(choice.balancer.spared.places)
    chosen = choice.pick(avoid, key)
    assert chosen in possible
    if possible - set(avoid):
        assert chosen not in avoid
    elif len(possible) > 1 and avoid:
        assert chosen is not avoid[-1]


def test_a_retry_does_not_go_back_to_the_only_spared_endpoint() -> None:
    choice = Choice(endpoints(2))
    spared, usable = choice.places
    choice.set_health(lambda one: Health.SPARED if one is spared else Health.USABLE)
    assert {choice.pick((spared,)) for _ in range(2_000)} == {usable}


def trials(choice: Choice, seconds: int, a_second: int, *, is_free: bool = True) -> list[float]:
    """When spared endpoints were tried, in seconds from now on, by so many requests in a second."""
    began, tried = choice.now, []
    for _ in range(seconds * a_second):
        choice.now += 1 / a_second
        if choice.balancer.trial(is_free=is_free) is not None:
            tried.append(choice.now - began)
        else:
            assert choice.pick().standing.health is not Health.SPARED
    return tried


@pytest.mark.parametrize("policy", POLICIES)
def test_what_spared_endpoints_fail_does_not_grow_with_the_load(policy: Balancing) -> None:
    choice = Choice(endpoints(3), policy)
    choice.set_health(lambda one: Health.USABLE if one is choice.places[2] else Health.SPARED)
    assert len(trials(choice, 60, 1_000)) == pytest.approx(60, abs=5), "one of two each 2 s"
    choice.set_health(lambda one: Health.EJECTED if one is choice.places[0] else one.standing.health)
    assert len(trials(choice, 60, 1_000)) == pytest.approx(30, abs=3), "the one each 2 s"


def test_trials_that_may_cost_a_client_an_answer_back_off_up_to_base() -> None:
    choice = Choice(endpoints(2))
    choice.set_health(lambda one: Health.SPARED if one is choice.places[0] else Health.USABLE)
    tried = [0.0, *trials(choice, 200, 1_000, is_free=False)]
    waits = [later - earlier for earlier, later in pairwise(tried)]
    assert waits == pytest.approx([4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0, 30.0], abs=0.5)


def test_a_request_that_can_be_sent_again_is_tried_where_another_one_would_have_to_wait() -> None:
    choice = Choice(endpoints(2))
    choice.set_health(lambda one: Health.SPARED if one is choice.places[0] else Health.USABLE)
    trials(choice, 100, 1_000, is_free=False)
    assert len(trials(choice, 20, 1_000)) == pytest.approx(10, abs=1)
    assert trials(choice, 25, 1_000, is_free=False) == [], "nor is another one needed while these come"


def test_a_request_that_cannot_be_sent_again_is_tried_often_again_after_a_good_answer() -> None:
    choice = Choice(endpoints(2))
    choice.set_health(lambda one: Health.SPARED if one is choice.places[0] else Health.USABLE)
    trials(choice, 100, 1_000, is_free=False)
    choice.places[0].standing.streak = 1
    trials(choice, 1, 1_000, is_free=False)
    choice.places[0].standing.streak = 0
    assert trials(choice, 10, 1_000, is_free=False)[0] == pytest.approx(4.0, abs=0.5)


def test_at_little_load_spared_endpoints_have_their_share_of_it() -> None:
    choice = Choice(endpoints(2))
    choice.set_health(lambda one: Health.SPARED if one is choice.places[0] else Health.USABLE)
    assert len(trials(choice, 1_000, 5)) == pytest.approx(100, abs=35)


def test_a_spared_endpoint_that_answers_well_has_all_of_its_share_again() -> None:
    choice = Choice(endpoints(2))
    choice.set_health(lambda one: Health.SPARED if one is choice.places[0] else Health.USABLE)
    trials(choice, 10, 1_000)
    choice.places[0].standing.streak = 1
    assert len(trials(choice, 10, 1_000)) == pytest.approx(200, abs=60)
    choice.places[0].standing.streak = 0
    assert len(trials(choice, 10, 1_000)) == pytest.approx(5, abs=1)


def in_play(choice: Choice) -> list[Place]:
    """Those that may be chosen at all: not one of weight 0, or of a later priority, while there are others."""
    return [place for group in choice.balancer._groups for place in group.places]


@settings(deadline=None, max_examples=300)
@given(situations(), st.data())
def test_a_request_that_has_failed_goes_only_to_one_that_is_well(
    situation: tuple[Choice, list[Place], int | None], data: st.DataObject
) -> None:
    choice, avoid, key = situation
    for place in choice.places:
        place.standing.good_at_failure = data.draw(st.sampled_from([-10, -9, 0]))
        place.standing.row = data.draw(st.sampled_from([0, 0, 1]))
    chosen = choice.balancer.pick_well(avoid, key)
    if chosen is not None:
        assert chosen not in avoid
        assert not chosen.standing.is_suspect
    elif len(choice.places) <= REDRAWS:
        assert all(one.standing.is_suspect or one in avoid for one in in_play(choice))


@settings(deadline=None, max_examples=300)
@given(situations())
def test_one_that_is_out_is_chosen_only_if_all_are(
    situation: tuple[Choice, list[Place], int | None],
) -> None:
    choice, avoid, key = situation
    chosen = choice.pick(avoid, key)
    out = (Health.EJECTED, Health.UNHEALTHY)
    if chosen.standing.health in out:
        assert all(one.standing.health in out for one in choice.places)


# By key


def keyed(count: int = 10, **more: object) -> Choice:
    return Choice(endpoints(count), Balancing.RING_HASH, **more)  # type: ignore[arg-type]


KEYS = [key_of(b"user-%d" % number) for number in range(1_000)]


def test_a_key_goes_to_the_same_endpoint_in_each_process() -> None:
    one, other = keyed(seed=1), keyed(seed=2)
    assert [str(one.pick(key=key).endpoint) for key in KEYS] == [
        str(other.pick(key=key).endpoint) for key in KEYS
    ]
    assert len({one.pick(key=key) for key in KEYS}) == 10


def test_an_ejection_moves_the_keys_of_the_ejected_endpoint_alone_and_they_come_back() -> None:
    choice = keyed()
    before = [choice.pick(key=key) for key in KEYS]
    bad = choice.places[3]
    choice.set_health(lambda one: Health.EJECTED if one is bad else Health.USABLE)
    meanwhile = [choice.pick(key=key) for key in KEYS]
    assert all((old is new) is (old is not bad) for old, new in zip(before, meanwhile, strict=True))
    assert len({new for old, new in zip(before, meanwhile, strict=True) if old is bad}) > 3
    choice.set_health(lambda _: Health.USABLE)
    assert [choice.pick(key=key) for key in KEYS] == before


def test_a_retry_goes_on_round_the_ring() -> None:
    choice = keyed()
    for key in KEYS[:50]:
        tried: list[Place] = []
        for _ in choice.places:
            tried.append(choice.pick(tried, key))
        assert len(set(tried)) == 10
        again = [choice.pick(tried[:number], key) for number in range(10)]
        assert again == tried


def test_without_a_key_it_is_least_request() -> None:
    choice = keyed(2)
    choice.places[0].in_flight = 5
    assert {choice.pick() for _ in range(50)} == {choice.places[1]}


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 30), st.integers(1, 300), st.integers(1, 3))
def test_no_endpoint_has_more_than_its_bounded_part_of_one_hot_key(
    count: int, requests: int, keys: int
) -> None:
    choice = keyed(count)
    for number in range(requests):
        choice.pick(key=KEYS[number % keys]).in_flight += 1
    assert max(one.in_flight for one in choice.places) <= -(-LOAD_BOUND * requests // count)


def test_while_nearly_all_are_out_the_rest_is_found_without_the_ring() -> None:
    choice = Choice(endpoints(400), Balancing.RING_HASH, ejection=EjectionPolicy(max_ejected=1.0))
    left = choice.places[7]
    choice.set_health(lambda one: Health.USABLE if one is left else Health.EJECTED)
    assert {choice.pick(key=key) for key in KEYS[:40]} == {left}


def test_one_that_comes_back_takes_its_keys_by_and_by() -> None:
    choice = keyed()
    back = choice.places[0]
    back.standing.back_at, back.standing.slow_seconds = choice.now, 10.0
    choice.renew()
    for key in KEYS:
        choice.pick(key=key).in_flight += 1
    usual = 1_000 / 10
    assert back.in_flight <= LOAD_BOUND * usual * 0.1 + 1
    for place in choice.places:
        place.in_flight = 0
    choice.now += 10.0
    for key in KEYS:
        choice.pick(key=key).in_flight += 1
    assert back.in_flight > usual / 2


def test_keys_come_back_one_after_the_other_where_nothing_is_in_flight() -> None:
    choice = keyed()
    back = choice.places[0]
    own = [key for key in KEYS if choice.pick(key=key) is back]
    coming_back(choice, back)
    begun = {key for key in own if choice.pick(key=key) is back}
    assert len(begun) < 0.25 * len(own)
    choice.now += 5.0
    half = {key for key in own if choice.pick(key=key) is back}
    assert begun <= half, "a key that is back stays"
    assert 0.3 < len(half) / len(own) < 0.8
    choice.now += 5.0
    assert [key for key in KEYS if choice.pick(key=key) is back] == own


@settings(deadline=None)
@given(
    st.sampled_from(POLICIES),
    st.lists(st.booleans(), min_size=1, max_size=8),
    st.none() | st.integers(0, 2**64 - 1),
)
def test_a_probe_asks_who_answered_last_then_each_of_the_others_in_turn(
    policy: Balancing, are_well: list[bool], key: int | None
) -> None:
    choice = Choice(weighted(*[1] * len(are_well)), policy)
    for place, is_well in zip(choice.places, are_well, strict=True):
        if is_well:
            choice.peers.succeeded(place.endpoint, 0.01, choice.now)
        else:
            choice.peers.failed(place.endpoint, "500", choice.now)
    failed: list[Place] = []
    for _ in are_well:
        chosen = choice.balancer.pick_for_probe(failed, key)
        assert chosen is not None
        choice.peers.failed(chosen.endpoint, "500", choice.now)
        failed.append(chosen)
    assert set(failed) == set(choice.places)
    firsts = failed[: sum(are_well)]
    assert {choice.places.index(one) for one in firsts} == {n for n, well in enumerate(are_well) if well}
    assert choice.balancer.pick_for_probe(failed, key) is failed[0]


@settings(deadline=None, max_examples=300)
@given(situations(), st.data())
def test_a_probe_asks_the_best_of_those_that_may_be_chosen(
    situation: tuple[Choice, list[Place], int | None], data: st.DataObject
) -> None:
    choice, failed, key = situation
    for place in choice.places:
        place.standing.row = data.draw(st.sampled_from([0, 0, 1]))
        place.standing.good = data.draw(st.sampled_from([0, 1]))

    def rank(place: Place) -> int:
        if place in failed:
            return 3
        return 0 if place.standing.is_well else 1 if not place.standing.longest else 2

    chosen = choice.balancer.pick_for_probe(failed, key)
    if chosen not in in_play(choice):  # one is spared, and all others are out
        assert not in_play(choice) or chosen is None
        return
    best = min(map(rank, in_play(choice)))
    assert rank(chosen) == best
    if best == 3:
        assert chosen is next(one for one in failed if one in in_play(choice))


@pytest.mark.parametrize("health", [Health.EJECTED, Health.SPARED, Health.UNHEALTHY])
def test_a_probe_asks_nobody_who_is_not_usable_while_another_is(health: Health) -> None:
    choice = Choice(weighted(1, 1, 1))
    choice.set_health(lambda one: Health.USABLE if one is choice.places[0] else health)
    for failed in ([], [choice.places[0]]):
        assert choice.balancer.pick_for_probe(failed) is choice.places[0]
