"""What connections hold adds up to the counter, whatever they do; and who is to go is who holds most for longest."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.core.memory_budget import (
    BUFFERS,
    CONNECTION_BYTES,
    LEAST_BUFFER_BYTES,
    MOST_BUFFER_BYTES,
    STEP_BYTES,
    Account,
    Claim,
    Held,
    MemoryBudget,
    charge_of_head,
    choose,
)

MIB = 1024 * 1024
LIMIT = 8 * MIB


class Bookkeeping(RuleBasedStateMachine):
    """Connections come, hold something, and go; a naive bookkeeper adds everything up each time."""

    @initialize()
    def begin(self) -> None:
        self.budget = MemoryBudget(MIB)
        self.calls = 0
        self.budget.on_over = self._over
        self.accounts: list[Account] = []
        self.held: list[tuple[int, int]] = []
        self.kernel = 0
        self.limit = MIB

    def _over(self) -> None:
        self.calls += 1

    @rule()
    def one_comes(self) -> None:
        self.budget.joined()
        self.accounts.append(Account(self.budget, 0.0))
        self.held.append((0, 0))

    @rule(number=st.integers(0, 20), size=st.integers(0, 300_000), kernel=st.integers(0, 100_000))
    def one_holds(self, number: int, size: int, kernel: int) -> None:
        if self.accounts:
            at = number % len(self.accounts)
            self.accounts[at].hold(size, kernel)
            self.held[at] = size, kernel

    @rule(number=st.integers(0, 20))
    def one_goes(self, number: int) -> None:
        if self.accounts:
            at = number % len(self.accounts)
            self.accounts.pop(at).hold(0)
            self.held.pop(at)
            self.budget.left()

    @rule(kernel=st.integers(0, MIB), is_pressed=st.booleans())
    def the_container_is_read(self, kernel: int, is_pressed: bool) -> None:
        self.budget.observe(kernel, is_pressed=is_pressed)
        self.kernel = kernel

    @invariant()
    def the_sum_of_charges_is_the_counter(self) -> None:
        own = sum(CONNECTION_BYTES + -(-size // STEP_BYTES) * STEP_BYTES for size, _ in self.held)
        kernel = max(self.kernel, sum(kernel for _, kernel in self.held))
        assert self.budget.used_bytes == own + kernel
        assert self.budget.connections == len(self.held)

    @invariant()
    def whoever_closes_has_been_called_when_it_is_over(self) -> None:
        if self.budget.is_over:
            assert self.calls
            assert self.budget.needed_bytes > 0
        else:
            assert self.budget.needed_bytes == 0


TestBookkeeping = Bookkeeping.TestCase


def test_closing_begins_short_of_the_limit_and_goes_on_below_it() -> None:
    budget, calls = MemoryBudget(10 * STEP_BYTES), []
    budget.on_over = lambda: calls.append(budget.used_bytes)
    account = Account(budget, 0.0)
    account.hold(9 * STEP_BYTES)
    assert not budget.is_over
    account.hold(9 * STEP_BYTES + 1)
    assert calls == [10 * STEP_BYTES]
    assert budget.needed_bytes == 2 * STEP_BYTES
    account.hold(8 * STEP_BYTES)
    assert budget.needed_bytes == 0
    assert len(calls) == 1, "nobody is called when something is given back"


def test_a_container_that_is_short_leaves_half_of_the_limit() -> None:
    budget, calls = MemoryBudget(10 * STEP_BYTES), []
    budget.on_over = lambda: calls.append(budget.used_bytes)
    Account(budget, 0.0).hold(5 * STEP_BYTES)
    budget.observe(0, is_pressed=False)
    assert calls == []
    budget.observe(0, is_pressed=True)
    assert calls == [5 * STEP_BYTES]
    assert budget.needed_bytes == STEP_BYTES
    budget.observe(0, is_pressed=False)
    assert budget.needed_bytes == 0


def test_a_reload_changes_the_limit_for_those_that_are_there() -> None:
    budget, calls = MemoryBudget(MIB), []
    budget.on_over = lambda: calls.append(budget.limit_bytes)
    Account(budget, 0.0).hold(MIB // 2)
    budget.resize(MIB // 4)
    assert calls == [MIB // 4]
    assert budget.is_over


def test_buffers_follow_the_number_of_connections_both_ways() -> None:
    budget = MemoryBudget(LIMIT)
    seen = [budget.buffer_bytes]
    for _ in range(1000):
        budget.joined()
        seen.append(budget.buffer_bytes)
        assert budget.buffer_bytes * BUFFERS * budget.connections <= LIMIT or seen[-1] == LEAST_BUFFER_BYTES
    assert list(dict.fromkeys(seen)) == [MOST_BUFFER_BYTES, 32768, 16384, 8192, LEAST_BUFFER_BYTES]
    for _ in range(1000):
        budget.left()
    assert (budget.buffer_bytes, budget.used_bytes) == (MOST_BUFFER_BYTES, 0)


def test_large_heads_alone_are_refused_when_nobody_can_be_closed() -> None:
    budget = MemoryBudget(MIB)
    small, large = charge_of_head(1000, 10), charge_of_head(4000, 10)
    assert budget.may_begin(large)
    budget.is_full = True
    assert budget.may_begin(small)
    assert not budget.may_begin(large)
    assert budget.refused == 1


def claim(name: str, address: str, kib: int, seconds: float) -> Claim:
    return Claim(name, address, kib * 1024, seconds)


def names(chosen: list[Claim]) -> list[str]:
    return [one.holder for one in chosen]


def test_who_holds_most_for_longest_goes_first() -> None:
    claims = [claim("young", "a", 64, 0.1), claim("small", "b", 4, 20.0), claim("old", "c", 64, 10.0)]
    assert names(choose(claims, 1, LIMIT)) == ["old"]
    assert names(choose(claims, 65 * 1024, LIMIT)) == ["old", "small"]
    assert names(choose(claims, LIMIT, LIMIT)) == ["old", "small", "young"]
    assert choose(claims, 0, LIMIT) == []


def test_an_address_with_more_than_a_tenth_pays_before_all_others() -> None:
    stranger = [claim(f"stranger {number}", "s", 60, 1.0) for number in range(20)]
    neighbour = claim("neighbour", "n", 60, 1000.0)
    chosen = names(choose([neighbour, *stranger], 600 * 1024, LIMIT))
    assert len(chosen) == 10
    assert "neighbour" not in chosen
    everybody = names(choose([neighbour, *stranger], LIMIT, LIMIT))
    assert everybody[-1] == "neighbour"


def test_connections_within_the_process_go_last_however_much_they_hold() -> None:
    own = [replace(claim(f"own {number}", "o", 600, 10.0), is_own=True) for number in range(20)]
    strangers = [claim(f"stranger {number}", f"s{number}", 60, 1.0) for number in range(20)]
    enough = names(choose([*own, *strangers], 1200 * 1024, LIMIT))
    assert sorted(enough) == sorted(one.holder for one in strangers)
    assert names(choose([*own, *strangers], 1201 * 1024, LIMIT)) == [*enough, "own 0"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 500), st.floats(0, 100)), max_size=30),
    st.integers(0, LIMIT),
)
def test_no_more_are_chosen_than_needed(found: list[tuple[str, int, float]], needed: int) -> None:
    claims = [claim(str(number), *one) for number, one in enumerate(found)]
    chosen = choose(claims, needed, LIMIT)
    assert len({one.holder for one in chosen}) == len(chosen)
    total = sum(one.size for one in chosen)
    assert total >= needed or len(chosen) == len(claims)
    assert not chosen or total - max(one.size for one in chosen) < max(needed, 1) + LIMIT


def test_everything_that_can_be_held_is_counted_from_zero() -> None:
    assert MemoryBudget().closed == dict.fromkeys(Held, 0)


def test_where_the_container_is_pressed_relief_is_asked_for_though_less_is_used() -> None:
    calls: list[int] = []
    budget = MemoryBudget(MIB)
    budget.on_over = lambda: calls.append(budget.used_bytes)
    budget.observe(471_861, is_pressed=False)
    assert not calls
    budget.observe(471_860, is_pressed=True)
    assert calls == [471_860]
