"""Which endpoints of an upstream are usable: ejected, spared, and taken back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.ejection.change import EjectionReason, Health
from sidecar.core.ejection.peers import MOST_AWAY, Peers
from sidecar.core.ejection.standing import SLOW_START_SECONDS
from sidecar.core.snapshot import EjectionPolicy

POLICY = EjectionPolicy()


class Spot:
    """Where attempts to an endpoint are counted."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.begun_at = 0.0


def peers_of(count: int, policy: EjectionPolicy = POLICY) -> Peers:
    peers = Peers("payments", policy)
    for number in range(count):
        peers.join(number, Spot(), 0.0)
    return peers


def fail(peers: Peers, endpoint: int, count: int, now: float) -> None:
    for _ in range(count):
        peers.failed(endpoint, "500", now)


def healths(peers: Peers) -> list[Health]:
    return [one.health for one in peers.members.values()]


U, E, S = Health.USABLE, Health.EJECTED, Health.SPARED


def test_five_failures_in_a_row_eject_an_endpoint_for_base() -> None:
    peers = peers_of(3)
    fail(peers, 1, 4, 1.0)
    assert healths(peers) == [U, U, U]
    fail(peers, 1, 1, 1.0)
    assert healths(peers) == [U, E, U]
    (change,) = peers.news
    assert change.told == "payments: 1 is left out for 30 s: 5 failures in a row, the last one: 500"
    assert (change.reason, change.seconds, change.times) == (EjectionReason.CONSECUTIVE_FAILURES, 30.0, 1)
    assert peers.next_due() == 31.0


def test_a_success_ends_a_row() -> None:
    peers = peers_of(3)
    for _ in range(10):
        fail(peers, 1, 4, 1.0)
        peers.succeeded(1, 0.01, 1.0)
    assert healths(peers) == [U, U, U]


def succeed(peers: Peers, endpoint: int, count: int, now: float) -> None:
    for _ in range(count):
        peers.succeeded(endpoint, 0.01, now)


def test_an_endpoint_is_suspect_from_a_failure_until_ten_good_answers_later() -> None:
    peers = peers_of(3)
    one = peers.members[1]
    assert not one.is_suspect, "nothing is known of it"
    succeed(peers, 1, 3, 0.5)
    fail(peers, 1, 1, 1.0)
    assert one.is_suspect
    succeed(peers, 1, 9, 2.0)
    assert one.is_suspect
    succeed(peers, 1, 1, 2.0)
    assert not one.is_suspect
    assert not peers.members[0].is_suspect


def test_another_interval_begins_no_new_opinion_of_an_endpoint() -> None:
    peers = peers_of(3)
    one = peers.members[1]
    fail(peers, 1, 1, 1.0)
    succeed(peers, 1, 5, 2.0)
    one.begin_interval(12.0)
    assert one.is_suspect
    succeed(peers, 1, 5, 12.0)
    assert not one.is_suspect


def test_an_endpoint_that_is_left_out_or_has_just_come_back_is_suspect() -> None:
    peers = peers_of(3)
    one = peers.members[1]
    succeed(peers, 1, 100, 0.5)
    fail(peers, 1, 5, 1.0)
    assert one.is_suspect
    peers.tick(31.0)
    assert one.health is U
    assert one.is_suspect
    succeed(peers, 1, 10, 32.0)
    assert not one.is_suspect


def test_a_share_of_failures_ejects_an_endpoint() -> None:
    peers = peers_of(3, replace(POLICY, consecutive_failures=0))
    fail(peers, 1, 16, 1.0)
    for _ in range(2):
        peers.succeeded(1, 0.01, 1.0)
    fail(peers, 1, 1, 1.0)
    assert healths(peers) == [U, U, U]
    fail(peers, 1, 1, 1.0)  # the 20th call
    assert healths(peers) == [U, E, U]
    assert peers.news[0].why == "18 of 20 failed within 10 s, the last one: 500"


def test_what_is_older_than_the_interval_counts_in_no_rate() -> None:
    peers = peers_of(3, replace(POLICY, consecutive_failures=0))
    fail(peers, 1, 19, 1.0)
    fail(peers, 1, 19, 11.0)
    assert healths(peers) == [U, U, U]
    fail(peers, 1, 1, 20.9)
    assert healths(peers) == [U, E, U]


def test_a_429_counts_in_the_rate_and_not_in_the_row() -> None:
    peers = peers_of(3)
    for _ in range(19):
        peers.failed(1, "429", 1.0, is_in_row=False)
    assert healths(peers) == [U, U, U]
    peers.failed(1, "429", 1.0, is_in_row=False)
    assert healths(peers) == [U, E, U]


def test_waits_grow_with_each_ejection_up_to_max_and_shrink_with_each_base_of_peace() -> None:
    peers, now, waits = peers_of(3), 0.0, []
    for _ in range(12):
        fail(peers, 1, 5, now)
        waits.append(peers.news[-1].seconds)
        now = peers.next_due()
        peers.tick(now)
    assert waits == [30.0, 60.0, 90.0, 120.0, 150.0, 180.0, 210.0, 240.0, 270.0, 300.0, 300.0, 300.0]
    now += 9 * 30.0
    fail(peers, 1, 5, now)
    assert peers.news[-1].seconds == 120.0  # of twelve, nine are taken off


def test_of_three_one_may_be_ejected_and_another_bad_one_is_spared() -> None:
    peers = peers_of(3)
    fail(peers, 0, 5, 1.0)
    fail(peers, 1, 5, 1.0)
    assert healths(peers) == [E, S, U]
    assert peers.news[-1].told == (
        "payments: 1 is bad, and gets few requests: 5 failures in a row, the last one: 500"
    )


@pytest.mark.parametrize(
    ("count", "share", "most"),
    [(1, 0.5, 0), (2, 0.5, 1), (2, 0.1, 1), (3, 0.5, 1), (4, 0.5, 2), (9, 0.3, 2), (10, 0.3, 3), (10, 0.0, 0), (3,
1.0, 2)], )  # fmt: skip
def test_no_more_are_ejected_than_may_be(count: int, share: float, most: int) -> None:
    peers = peers_of(count, replace(POLICY, max_ejected=share, base_seconds=1000.0))
    for number in range(count):
        fail(peers, number, 5, 100.0 * number)  # far apart: no majority within an interval
        if number == most:
            peers.tick(100.0 * number)
    assert peers.ejected == most


def test_a_majority_that_fails_together_is_the_upstream() -> None:
    peers = peers_of(10, replace(POLICY, max_ejected=1.0))
    for number in range(10):
        fail(peers, number, 5, 1.0)
    assert peers.ejected == 5
    assert healths(peers) == [E] * 5 + [S] * 5


def test_one_that_falls_twice_within_an_interval_is_no_majority() -> None:
    peers = peers_of(4, replace(POLICY, max_ejected=0.75))
    fail(peers, 0, 5, 1.0)
    fail(peers, 1, 5, 1.0)
    fail(peers, 2, 5, 1.0)  # the majority
    assert healths(peers) == [E, E, S, U]
    for _ in range(5):
        peers.succeeded(2, 0.01, 1.5)
    assert healths(peers) == [E, E, U, U]
    assert len(peers._fallen) == 3
    fail(peers, 2, 5, 2.0)
    assert len(peers._fallen) == 3


def test_a_spared_one_is_usable_again_after_five_good_answers_in_a_row() -> None:
    peers = peers_of(3)
    fail(peers, 0, 5, 1.0)
    fail(peers, 1, 5, 1.0)
    for _ in range(4):
        peers.succeeded(1, 0.01, 2.0)
    peers.failed(1, "500", 2.0)
    for _ in range(4):
        peers.succeeded(1, 0.01, 2.0)
    assert healths(peers) == [E, S, U]
    peers.succeeded(1, 0.01, 2.0)
    assert healths(peers) == [E, U, U]


def test_a_spared_one_that_still_fails_takes_the_place_of_one_that_is_back() -> None:
    peers = peers_of(3)
    fail(peers, 0, 5, 1.0)
    fail(peers, 1, 5, 1.0)
    peers.tick(31.0)
    assert healths(peers) == [U, S, U]
    peers.failed(1, "500", 32.0)
    assert healths(peers) == [U, E, U]


def test_with_none_usable_everything_counts_and_one_good_answer_makes_all_usable() -> None:
    peers = peers_of(4)
    for number in range(4):
        assert peers.counts(number)
        fail(peers, number, 5, 1.0)
        assert peers.counts(number) == (number == 3)
    assert peers.usable == 0
    assert all(map(peers.counts, range(4)))
    peers.succeeded(2, 0.01, 5.0)
    assert healths(peers) == [U] * 4
    assert [one.share(5.0) for one in peers.members.values()] == [1.0] * 4
    assert [one.row for one in peers.members.values()] == [0] * 4


def test_what_is_back_comes_to_its_whole_share_in_ten_seconds() -> None:
    peers = peers_of(3)
    fail(peers, 1, 5, 1.0)
    peers.tick(31.0)
    standing = peers.members[1]
    assert [standing.share(31.0 + gone) for gone in (0.0, 5.0, SLOW_START_SECONDS)] == pytest.approx(
        [0.1, 0.55, 1.0]
    )


def test_one_endpoint_alone_is_never_ejected() -> None:
    peers = peers_of(1)
    fail(peers, 0, 100, 1.0)
    assert healths(peers) == [U]
    assert peers.counts(0)


def test_with_ejection_off_nobody_is_ejected_and_whoever_was_is_back() -> None:
    peers = peers_of(3)
    fail(peers, 1, 5, 1.0)
    peers.adopt(replace(POLICY, is_on=False), 2.0)
    assert healths(peers) == [U, U, U]
    fail(peers, 1, 50, 3.0)
    assert healths(peers) == [U, U, U]


def test_one_that_was_away_while_ejection_was_switched_off_is_back_as_well() -> None:
    peers = peers_of(3)
    fail(peers, 1, 5, 1.0)
    peers.leave(1, peers.members[1].places[0], 2.0)
    peers.adopt(replace(POLICY, is_on=False), 3.0)
    peers.join(1, Spot(), 4.0)
    assert (peers.members[1].health, peers.usable, peers.ejected) == (U, 3, 0)


def test_when_endpoints_leave_no_more_stay_ejected_than_may_be() -> None:
    peers = peers_of(6)
    for number in range(3):
        fail(peers, number, 5, 1.0 + number)
    assert peers.ejected == 3
    for number in (3, 4):
        peers.leave(number, peers.members[number].places[0], 5.0)
    assert peers.ejected == 2
    assert healths(peers) == [S, E, E, U]


def test_the_last_one_left_is_used_whatever_it_did() -> None:
    peers = peers_of(2)
    fail(peers, 0, 5, 1.0)
    peers.leave(1, peers.members[1].places[0], 5.0)
    assert healths(peers) == [U]
    assert peers.ejected == 0


def test_an_ejected_one_that_leaves_and_comes_back_is_still_ejected_and_taken_back_in_time() -> None:
    peers = peers_of(3)
    fail(peers, 1, 5, 1.0)
    peers.leave(1, peers.members[1].places[0], 5.0)
    assert (len(peers.members), peers.ejected, peers.next_due()) == (2, 0, float("inf"))
    peers.join(1, Spot(), 20.0)
    assert peers.members[1].health is E
    assert peers.next_due() == 31.0
    peers.tick(31.0)
    assert peers.members[1].health is U


def test_one_that_comes_back_after_its_time_has_nothing_against_it() -> None:
    peers = peers_of(3)
    fail(peers, 1, 5, 1.0)
    peers.leave(1, peers.members[1].places[0], 5.0)
    peers.join(1, Spot(), 40.0)
    assert (peers.members[1].health, peers.usable) == (U, 3)


def test_endpoints_that_are_away_are_remembered_up_to_a_bound() -> None:
    peers = peers_of(
        2, replace(POLICY, max_ejected=1.0, base_seconds=1e6, max_seconds=1e6, interval_seconds=0.5)
    )
    for number in range(2, MOST_AWAY + 50):
        spot = Spot()
        peers.join(number, spot, float(number))
        fail(peers, number, 5, float(number))
        peers.leave(number, spot, float(number))
    assert len(peers._away) == MOST_AWAY


def test_an_endpoint_in_two_pools_leaves_with_the_last_of_them() -> None:
    peers = peers_of(2)
    fail(peers, 1, 5, 1.0)
    second = Spot()
    standing = peers.join(1, second, 2.0)
    assert standing.health is E
    peers.leave(1, standing.places[0], 3.0)
    assert peers.members[1] is standing
    assert standing.places == [second]


def test_one_that_is_much_slower_than_three_peers_is_ejected() -> None:
    peers = peers_of(4, replace(POLICY, slower_than_peers=5.0))
    for call in range(60):
        for number in range(4):
            peers.succeeded(number, 0.2 if number == 2 else 0.02, call * 0.1)
    assert healths(peers) == [U, U, E, U]
    assert peers.news[0].why == "its median is 0.2 s, 10.0 times that of its peers"


def test_slowness_is_not_compared_with_fewer_than_three_peers() -> None:
    peers = peers_of(3, replace(POLICY, slower_than_peers=5.0))
    for call in range(60):
        for number in range(3):
            peers.succeeded(number, 0.2 if number == 2 else 0.02, call * 0.1)
    assert healths(peers) == [U, U, U]


def test_stragglers_of_an_ejected_endpoint_change_nothing() -> None:
    peers = peers_of(3)
    fail(peers, 1, 5, 1.0)
    peers.news.clear()
    fail(peers, 1, 10, 2.0)
    for _ in range(10):
        peers.succeeded(1, 0.01, 2.0)
    assert (healths(peers), peers.news, peers.next_due()) == ([U, E, U], [], 31.0)
