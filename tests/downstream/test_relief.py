"""What is done when all connections together hold more than they may: in that very turn of the loop, and after it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

from sidecar.core.memory_budget import CONNECTION_BYTES, Account, Claim, Held, MemoryBudget
from sidecar.downstream.relief import AGAIN_SECONDS, GO_ON_A_TURN, TURNS_TO_END, Relief
from tests.downstream.stage import GET, Stage, post
from tests.support.by_hand import HandLoop

LIMIT = 1_000_000


class Reader:
    """Holds what it was given, and may be closed for it."""

    def __init__(self, budget: MemoryBudget, *, can_end: bool) -> None:
        self.account = Account(budget, 0.0)
        self.is_held = False
        self.can_end = can_end

    def claim(self, now: float) -> Claim | None:
        return Claim(self, "", self.account.charged_bytes, now) if self.can_end else None

    def end_for_memory(self) -> Held:
        self.account.hold(0)
        self.can_end = False
        return Held.ANSWER

    def hold_for_memory(self) -> None:
        self.is_held = True

    def go_on(self) -> None:
        self.is_held = False


class House:
    """A budget and its relief. Clients can be closed, and connections with upstreams only be held."""

    def __init__(self, clients: int, upstreams: int) -> None:
        self.loop = HandLoop()
        self.budget = MemoryBudget(LIMIT)
        self.clients = [Reader(self.budget, can_end=True) for _ in range(clients)]
        self.upstreams = [Reader(self.budget, can_end=False) for _ in range(upstreams)]
        self.ending = 0
        """What was closed has not ended yet."""
        self.asked = 0
        """How often who can be held."""
        relief = Relief(
            cast(Any, self.loop), self.loop.time, self.budget,
            lambda: cast(Any, self.clients), self.with_upstreams, lambda: 0, lambda: self.ending > 0,
        )  # fmt: skip
        self.budget.on_over = relief.begin

    def with_upstreams(self) -> list[Any]:
        self.asked += 1
        return list(self.upstreams)

    @property
    def held(self) -> int:
        return sum(one.is_held for one in self.upstreams)


def test_once_more_than_all_is_held_nobody_is_read_within_the_same_turn() -> None:
    house = House(clients=10, upstreams=200)
    for number, one in enumerate(house.clients):
        assert house.held == (200 if house.budget.has_none_left else 0), number
        one.account.hold(120_000)
    assert house.held == 200
    house.loop.settle()
    assert house.held == 0
    assert not house.budget.is_over
    assert house.budget.closed[Held.ANSWER] > 0


def test_nobody_else_is_closed_while_what_was_closed_still_ends() -> None:
    house = House(clients=2, upstreams=0)
    first, second = house.clients
    first.account.hold(LIMIT)

    def end_later() -> Held:
        first.can_end, house.ending = False, 1
        return Held.ANSWER

    first.end_for_memory = end_later  # type: ignore[method-assign]
    second.account.hold(LIMIT // 10)
    for _ in range(TURNS_TO_END // 2):
        house.loop.turn()
    assert (house.budget.closed[Held.ANSWER], second.can_end) == (1, True)
    first.account.hold(0)
    house.ending = 0
    house.loop.settle()
    assert (house.budget.closed[Held.ANSWER], second.can_end) == (1, True)


def test_ends_without_end_do_not_keep_memory_from_being_given_back() -> None:
    house = House(clients=2, upstreams=0)
    house.ending = 1
    for one in house.clients:
        one.account.hold(LIMIT)
    for _ in range(4 * TURNS_TO_END):
        house.loop.turn()
    assert not house.budget.is_over


def test_those_who_were_held_go_on_a_few_in_a_turn_and_stop_when_that_brings_too_much_again() -> None:
    house = House(clients=1, upstreams=3 * GO_ON_A_TURN)
    house.clients[0].account.hold(LIMIT + 1)
    turns = []
    while house.loop.is_ready and len(turns) < 100:
        house.loop.turn()
        turns.append(house.held)
    assert {before - after for before, after in pairwise(turns)} == {0, GO_ON_A_TURN}
    assert turns[-1] == 0


def test_where_nobody_can_be_closed_some_go_on_all_the_same() -> None:
    house = House(clients=0, upstreams=2 * GO_ON_A_TURN + 1)
    house.upstreams[0].account.hold(2 * LIMIT)
    seen = [house.held]
    for _ in range(3):
        house.loop.advance(AGAIN_SECONDS)
        seen.append(house.held)
    assert (seen[0], seen[-1], house.budget.is_full) == (2 * GO_ON_A_TURN + 1, 0, True)
    assert max(before - after for before, after in pairwise(seen)) <= 2 * GO_ON_A_TURN
    house.upstreams[0].account.hold(0)
    house.loop.advance(AGAIN_SECONDS)
    assert not house.budget.is_full


def test_where_nobody_can_be_held_it_is_asked_who_can_be_once_a_look() -> None:
    house = House(clients=10, upstreams=0)
    for one in house.clients:
        one.account.hold(LIMIT)
    assert house.asked == 1
    for one in house.clients:
        one.can_end = False
    house.loop.settle()
    assert house.asked == 1
    house.clients[0].account.hold(2 * LIMIT)
    house.clients[1].account.hold(2 * LIMIT)
    assert house.asked == 2
    house.upstreams.append(Reader(house.budget, can_end=False))
    house.loop.advance(AGAIN_SECONDS)
    house.clients[0].account.hold(3 * LIMIT)
    assert (house.asked, house.held) == (3, 1)


def test_a_client_that_is_held_goes_on_unless_something_else_holds_it() -> None:
    stage = Stage()
    stage.connection.hold_for_memory()
    assert stage.transport.is_paused
    stage.connection.go_on()
    assert not stage.transport.is_paused
    stage.upstream()
    stage.send(post(100_000))
    stage.connection.hold_for_memory()
    stage.connection.hold()
    timers = stage.loop.timers
    stage.connection.go_on()
    assert stage.transport.is_paused
    assert stage.loop.timers == timers + 1, "it is looked whether the client has left"
    stage.connection.resume()
    assert not stage.transport.is_paused


def test_a_client_that_is_held_has_its_answer_and_its_end() -> None:
    stage = Stage()
    lease = stage.upstream()
    stage.send(GET)
    stage.connection.hold_for_memory()
    stage.answer(lease)
    assert stage.statuses() == [200]
    stage.lose()
    stage.connection.go_on()
    assert stage.path.service.memory.used_bytes == 0


def test_clients_of_a_listener_are_those_that_relief_holds() -> None:
    """Their budget is used up by their number."""
    stage = Stage()
    budget = stage.path.service.memory
    _, other = stage.connect()
    relief = Relief(
        cast(Any, stage.loop), stage.loop.time, budget, stage.listener.connections, list, lambda: 0
    )
    budget.on_over = relief.begin
    budget.resize(2 * CONNECTION_BYTES - 1)
    assert (stage.transport.is_paused, other.is_paused) == (True, True)
