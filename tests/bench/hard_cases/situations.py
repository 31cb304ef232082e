"""The situations, each with what a good breaker does in it. Every number of a situation stands here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

from sidecar.core.snapshot import CheckPolicy
from tests.bench.hard_cases.upstreams import (
    FAILS,
    GOOD,
    HANGS,
    OFFSET,
    REFUSES,
    NextSidecar,
    Plan,
    Script,
    Workers,
)
from tests.bench.hard_cases.world import Attempt, Call, Counts, Ended, Limit, Proxy, Upstream, World


@dataclass
class Result:
    """What one run showed. Seconds; `inf` for never."""

    opened_after: float
    """From the beginning of the trouble (or of the run, if there is none)."""
    closed_after: float
    """From the end of the trouble until it is closed for good; 0 if it never opened."""
    openings: int
    """How often it left CLOSED."""
    lost: int
    """Calls that went and failed."""
    wrongly_refused: int
    """Refused while the upstream was well."""
    groups: dict[str, Counts]


Make = Callable[..., Proxy]
"""Make(upstream, timeout=15.0, connections=inf): a proxy with a breaker of the kind under test."""


@dataclass(frozen=True)
class Situation:
    name: str
    build: Callable[[World, Make], Proxy]
    wanted: str
    """In words."""
    is_right: Callable[[Result], bool]
    until: float = 60.0
    trouble: tuple[float, float] | None = None
    """From when to when the upstream is ill. None: it is well all the time."""
    policy: dict[str, Any] = field(default_factory=dict)
    """Of the breaker, where it differs from the defaults."""
    runs: int = 5
    """With different seeds; the median is shown, and all must be right."""


def steady(
    world: World, proxy: Proxy, rate: float, call: Call, since: float = 0.0, until: float = inf
) -> None:
    """Callers who come by chance, `rate` a second."""

    def next_one() -> None:
        if world.now < until:
            proxy.call(call)
            world.after(world.rng.expovariate(rate), next_one)

    world.at(since + world.rng.expovariate(rate), next_one)


def busy(
    world: World, proxy: Proxy, call: Call, count: int = 1, pause: float = 0.05, since: float = 0.0
) -> None:
    """Callers who call again a little after each answer."""

    def again(_: Attempt | None = None) -> None:
        world.after(pause * (0.5 + world.rng.random()), lambda: proxy.call(call, again))

    for _ in range(count):
        world.at(since, again)


def ill(begin: float, end: float, trouble: Plan, well: Plan = GOOD) -> Callable[[Attempt, float], Plan]:
    return lambda attempt, now: trouble if begin <= now < end else well


PATIENT = Call(name="patient")
STREAM = Plan(head=0.05, body=300.0, moves_each=1.0)


# Recovery


def starved(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, ill(10.0, 11.0, FAILS, Plan(head=0.2))))
    busy(world, proxy, Call(budget=0.1, name="brief"), count=10, pause=0.005)
    busy(world, proxy, PATIENT)
    return proxy


def streams_alone(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, ill(0.0, 10.0, FAILS, STREAM)), timeout=600.0)
    steady(world, proxy, 5.0, Call())
    return proxy


def slow_upload(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, ill(0.0, 10.0, FAILS)), timeout=30.0)
    busy(world, proxy, Call(body_after=20.0, leaves_after=8.0, name="uploads"), count=3, pause=0.01)
    steady(world, proxy, 5.0, PATIENT)
    return proxy


def stalled_uploads(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, ill(0.0, 10.0, FAILS)))
    busy(world, proxy, Call(body_after=inf, leaves_after=8.0, name="uploads"), count=3, pause=0.01)
    steady(world, proxy, 5.0, PATIENT)
    return proxy


def large_uploads(world: World, make: Make) -> Proxy:
    """More than the probes that may be out at once, and each stays until its client leaves."""
    proxy = make(Script(world, ill(0.0, 10.0, FAILS)))
    uploads = Call(body_after=inf, leaves_after=8.0, is_large=True, name="uploads")
    busy(world, proxy, uploads, count=24, pause=0.01)
    steady(world, proxy, 5.0, PATIENT)
    return proxy


def client_that_does_not_read(world: World, make: Make) -> Proxy:
    plan = Plan(head=0.05, body=inf, moves_each=inf)

    def of(attempt: Attempt, now: float) -> Plan:
        if now < 10.0:
            return FAILS
        return plan if attempt.call.kind == "download" else GOOD

    proxy = make(Script(world, of))
    busy(world, proxy, Call("download", is_reading=False, name="downloads"), count=3)
    steady(world, proxy, 5.0, PATIENT)
    return proxy


def report_among_probes(world: World, make: Make) -> Proxy:
    def of(attempt: Attempt, now: float) -> Plan:
        if now < 10.0:
            return FAILS
        return Plan(head=12.0) if attempt.call.kind == "report" else GOOD

    proxy = make(Script(world, of), timeout=30.0)
    steady(world, proxy, 1.0, Call("report", name="reports"))
    steady(world, proxy, 5.0, PATIENT)
    return proxy


def cold_upstream(world: World, make: Make) -> Proxy:
    served = [0]

    def of(attempt: Attempt, now: float) -> Plan:
        if now < 10.0:
            return FAILS
        served[0] += 1
        return Plan(head=1.2) if served[0] <= 50 else GOOD

    proxy = make(Script(world, of))
    steady(world, proxy, 20.0, PATIENT)
    return proxy


def quick_not_found(world: World, make: Make) -> Proxy:
    def of(attempt: Attempt, now: float) -> Plan:
        if world.rng.random() < 0.3:
            return Plan(head=0.005, status=404)
        return HANGS if 10.0 <= now < 130.0 else GOOD

    proxy = make(Script(world, of), timeout=2.0)
    steady(world, proxy, 20.0, PATIENT)
    return proxy


def half_the_load(world: World, make: Make) -> Proxy:
    proxy = make(Workers(world, 2, lambda attempt, now: 0.1), timeout=1.0)
    steady(world, proxy, 40.0, PATIENT)
    return proxy


def broken_after_the_head(world: World, make: Make) -> Proxy:
    def of(attempt: Attempt, now: float) -> Plan:
        return Plan(head=0.05, body=3.0, how=Ended.RESET, moves_each=0.5)

    proxy = make(Script(world, of))
    steady(world, proxy, 10.0, PATIENT)
    return proxy


def no_more_calls(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, ill(10.0, 30.0, FAILS)))
    steady(world, proxy, 10.0, PATIENT, until=20.0)
    return proxy


def some_calls_are_good(world: World, make: Make) -> Proxy:
    """OPTIONS is answered by the framework, whatever the service itself can do."""

    def of(attempt: Attempt, now: float) -> Plan:
        return FAILS if 10.0 <= now < 60.0 and attempt.call.kind != "options" else GOOD

    proxy = make(Script(world, of))
    steady(world, proxy, 14.0, PATIENT)
    steady(world, proxy, 6.0, Call("options"))
    return proxy


def chain(length: int) -> Callable[[World, Make], Proxy]:
    def build(world: World, make: Make) -> Proxy:
        upstream: Upstream = Script(world, ill(10.0, 25.0, REFUSES))
        proxy = make(upstream)
        for _ in range(length - 1):
            proxy = make(NextSidecar(proxy))
        steady(world, proxy, 20.0, PATIENT)
        return proxy

    return build


# What counts


def streams_beside_failures(world: World, make: Make) -> Proxy:
    """A hundred streams begin one after another, and now and then a 500 comes between two of them."""

    def of(attempt: Attempt, now: float) -> Plan:
        return FAILS if attempt.call.kind == "bad" else STREAM

    proxy = make(Script(world, of), timeout=600.0)
    world.every(0.2, lambda: proxy.call(Call("stream")), until=20.0)
    world.every(4.0, lambda: proxy.call(Call("bad")), since=0.3, until=20.0)
    return proxy


def own_cuts(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, lambda attempt, now: STREAM))
    for number in range(8):
        world.at(number * 2.0, lambda: proxy.call(Call("events")))
    return proxy


def stalled_downloads(world: World, make: Make) -> Proxy:
    def of(attempt: Attempt, now: float) -> Plan:
        return Plan(head=0.05, body=inf, has_length=True) if now >= 10.0 else GOOD

    proxy = make(Script(world, of), timeout=2.0)
    steady(world, proxy, 5.0, PATIENT)
    return proxy


def budgets_on_a_hang(budget: float, limit: Limit = Limit.CALLER) -> Callable[[World, Make], Proxy]:
    def build(world: World, make: Make) -> Proxy:
        proxy = make(Script(world, ill(20.0, 40.0, HANGS)))
        steady(world, proxy, 10.0, Call(budget=budget - OFFSET, limit=limit))
        return proxy

    return build


def strangers_on_a_slow_path(world: World, make: Make) -> Proxy:
    def of(attempt: Attempt, now: float) -> Plan:
        return Plan(head=5.0) if attempt.call.kind == "report" else GOOD

    proxy = make(Script(world, of))
    steady(world, proxy, 5.0, PATIENT)
    for number in range(8):
        world.at(
            20.0 + number * 0.001,
            lambda: proxy.call(Call("report", budget=1.15 - OFFSET, limit=Limit.STRANGER)),
        )
    return proxy


def quick_504(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, ill(10.0, 30.0, Plan(head=0.02, status=504))))
    steady(world, proxy, 10.0, Call(budget=0.3))
    return proxy


def own_queue(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, lambda attempt, now: Plan(head=0.1)), timeout=2.0, connections=1)
    for moment in (1.0, 11.0, 21.0):
        for _ in range(40):
            world.at(moment, lambda: proxy.call(Call()))
    return proxy


def hang_behind_a_sidecar(world: World, make: Make) -> Proxy:
    inner = make(Script(world, ill(10.0, 40.0, HANGS)), timeout=15.0)
    proxy = make(NextSidecar(inner), timeout=2.0)
    steady(world, proxy, 10.0, PATIENT)
    return proxy


def slow_route_short_budgets(share: float) -> Callable[[World, Make], Proxy]:
    def build(world: World, make: Make) -> Proxy:
        def of(attempt: Attempt, now: float) -> Plan:
            return Plan(head=1.2 * world.rng.lognormvariate(0.0, 0.4))

        proxy = make(Script(world, of))
        steady(world, proxy, 20.0 * share, Call(budget=1.0 - OFFSET, name="brief"), since=5.0)
        if share < 1.0:
            steady(world, proxy, 20.0 * (1 - share), PATIENT)
        return proxy

    return build


def leavers_before_a_hang(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, ill(20.0, 40.0, HANGS)))
    steady(world, proxy, 5.0, Call(leaves_after=2.5))
    return proxy


def leavers_with_slow_calls(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, ill(20.0, 40.0, HANGS)))
    steady(world, proxy, 20.0, Call(leaves_after=2.5))
    return proxy


def calls_in_flight(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, ill(15.0, 40.0, HANGS)))
    steady(world, proxy, 1.0, PATIENT, until=15.0)
    for number in range(50):
        world.at(15.0 + number * 0.01, lambda: proxy.call(Call()))
    steady(world, proxy, 5.0, PATIENT, since=20.0)
    return proxy


def streams_and_slow_calls(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, lambda attempt, now: Plan(head=0.1, body=30.0, moves_each=1.0)), timeout=600.0)
    steady(world, proxy, 10.0, Call())
    return proxy


def streams_cut_at_once(world: World, make: Make) -> Proxy:
    endpoints = ("10.0.0.7:8080", "10.0.0.8:8080")

    def of(attempt: Attempt, now: float) -> Plan:
        return STREAM if attempt.call.kind == "stream" else GOOD

    proxy = make(Script(world, of, endpoints), timeout=600.0)
    world.every(0.1, lambda: proxy.call(Call("stream")), since=5.0, until=25.0)
    steady(world, proxy, 50.0, PATIENT)
    world.at(28.0, partial(proxy.cut, endpoints[0]))
    return proxy


def pod_of_ten_dies(world: World, make: Make) -> Proxy:
    endpoints = tuple(f"10.0.0.{number}:8080" for number in range(10))

    def of(attempt: Attempt, now: float) -> Plan:
        if now >= 20.0 and attempt.endpoint == endpoints[0]:
            return REFUSES
        return Plan(head=1.0)

    proxy = make(Script(world, of, endpoints))
    steady(world, proxy, 500.0, PATIENT, until=30.0)
    world.at(20.0, partial(proxy.cut, endpoints[0]))
    return proxy


def slow_start(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, ill(0.0, 11.0, REFUSES)))
    steady(world, proxy, 5.0, PATIENT)
    return proxy


def asked_to_wait(world: World, make: Make) -> Proxy:
    proxy = make(Script(world, ill(10.0, 40.0, Plan(status=503, retry_after=30.0))))
    steady(world, proxy, 20.0, PATIENT)
    return proxy


def never_opens(result: Result) -> bool:
    return result.openings == 0


def closes_within(seconds: float, opens_within: float = inf) -> Callable[[Result], bool]:
    def is_right(result: Result) -> bool:
        return result.closed_after <= seconds and result.opened_after <= opens_within

    return is_right


def opens_within(seconds: float) -> Callable[[Result], bool]:
    return lambda result: result.opened_after <= seconds


CHECKED = {"half_open_check": CheckPolicy("/healthz")}
SHORT = {"consecutive_failures": 2, "open_seconds": 0.5}

SITUATIONS = (
    Situation(
        "starved: ten callers of 100 ms, one patient, back with 200 ms",
        starved, "closed within 5 s", closes_within(5.0, 1.0), trouble=(10.0, 11.0), policy=SHORT, runs=200,
    ),
    Situation(
        "streams alone after an outage", streams_alone, "closed within `judge_after` + `max_wait`",
        closes_within(11.0, 2.0), trouble=(0.0, 10.0), until=120.0, policy=SHORT,
    ),
    Situation(
        "slow uploads (20 s) among probes", slow_upload, "closed within 2 s", closes_within(2.0, 2.0),
        trouble=(0.0, 10.0), until=90.0, policy={**SHORT, "max_open_seconds": 1.0},
    ),
    Situation(
        "three loops of stalled uploads", stalled_uploads, "closed within 2 s", closes_within(2.0, 2.0),
        trouble=(0.0, 10.0), until=60.0, policy={**SHORT, "max_open_seconds": 1.0},
    ),
    Situation(
        "24 loops of large uploads that stall", large_uploads, "closed within 5 s", closes_within(5.0, 2.0),
        trouble=(0.0, 10.0), until=60.0, policy={**SHORT, "max_open_seconds": 1.0}, runs=20,
    ),
    Situation(
        "clients that do not read", client_that_does_not_read, "closed within 3 s", closes_within(3.0, 2.0),
        trouble=(0.0, 10.0), until=60.0, policy={**SHORT, "max_open_seconds": 1.0},
    ),
    Situation(
        "a report of 12 s among probes", report_among_probes, "closed within 8 s", closes_within(8.0, 2.0),
        trouble=(0.0, 10.0), until=60.0, policy={**SHORT, "max_open_seconds": 1.0},
    ),
    Situation(
        "cold: its first 50 calls take 1.2 s", cold_upstream, "closed within 30 s", closes_within(30.0, 2.0),
        trouble=(0.0, 10.0), until=200.0,
        policy={**SHORT, "max_open_seconds": 5.0, "slow_call_seconds": 1.0},
    ),
    Situation(
        "hangs, 30 % quick 404s", quick_not_found, "never closed in the trouble, closed 70 s after it",
        lambda r: r.closed_after <= 70.0 and r.openings == 1, trouble=(10.0, 130.0), until=220.0,
    ),
    Situation(
        "bears half the load", half_the_load, "under 20 openings in 600 s", lambda r: 0 < r.openings < 20,
        trouble=(0.0, 600.0), until=600.0, policy={"open_seconds": 1.0}, runs=20,
    ),
    Situation(
        "every long answer breaks after its head", broken_after_the_head, "opens; under 25 openings in 600 s",
        lambda r: 0 < r.openings < 25, trouble=(0.0, 600.0), until=600.0,
    ),
    Situation(
        "no calls after 10 s of the trouble, `half_open.check`", no_more_calls, "closed within 21 s",
        closes_within(21.0, 2.0), trouble=(10.0, 30.0), until=90.0, policy=CHECKED,
    ),
    Situation(
        "30 % OPTIONS are good while all else fails, `half_open.check`", some_calls_are_good,
        "never closed in the trouble, closed 60 s after it", lambda r: r.closed_after <= 60.0 and r.openings == 1,
        trouble=(10.0, 60.0), until=150.0, policy=CHECKED,
    ),
    Situation(
        "one sidecar", chain(1), "closed within `max_open_for`", closes_within(4.5, 2.0), trouble=(10.0, 25.0),
        until=120.0, policy={"open_seconds": 2.0, "max_open_seconds": 4.0}, runs=20,
    ),
    Situation(
        "three sidecars in a row", chain(3), "within 1.3 × of one", closes_within(1.3 * 4.5, 2.0),
        trouble=(10.0, 25.0), until=120.0, policy={"open_seconds": 2.0, "max_open_seconds": 4.0}, runs=20,
    ),
    Situation(
        "good streams with a 500 between", streams_beside_failures, "never opens", never_opens, until=60.0,
    ),
    Situation(
        "event streams cut by our own 15 s", own_cuts, "never opens", never_opens, until=60.0,
    ),
    Situation(
        "downloads with a length that stall", stalled_downloads, "opens within 5 s", opens_within(5.0),
        trouble=(10.0, 60.0), until=60.0,
    ),
    Situation(
        "hang, callers of 1000 ms", budgets_on_a_hang(1.0), "opens within 3 s", closes_within(22.0, 3.0),
        trouble=(20.0, 40.0), until=90.0,
    ),
    Situation(
        "hang, callers of 800 ms", budgets_on_a_hang(0.8), "opens within 3 s", closes_within(22.0, 3.0),
        trouble=(20.0, 40.0), until=90.0,
    ),
    Situation(
        "hang, strangers of 1150 ms alone", budgets_on_a_hang(1.15, Limit.STRANGER),
        "opens by silence within 15 s", closes_within(20.0, 15.0), trouble=(20.0, 40.0), until=90.0,
    ),
    Situation(
        "strangers of 1150 ms on a slow path", strangers_on_a_slow_path, "never opens", never_opens,
    ),
    Situation(
        "genuine 504 after 20 ms, callers of 300 ms", quick_504, "opens within 2 s", opens_within(2.0),
        trouble=(10.0, 30.0),
    ),
    Situation(
        "our own queue: one connection, 40 at once", own_queue, "never opens", never_opens,
        policy={"slow_call_seconds": 0.5},
    ),
    Situation(
        "hang behind another sidecar, `request: 2s`", hang_behind_a_sidecar, "opens within 4 s",
        opens_within(4.0), trouble=(10.0, 40.0), until=80.0,
    ),
    Situation(
        "p50 1.2 s, half the callers bring 1 s", slow_route_short_budgets(0.5), "never opens", never_opens,
        until=120.0, runs=20,
    ),
    Situation(
        "p50 1.2 s, all callers bring 1 s", slow_route_short_budgets(1.0), "(beyond the rules)",
        lambda r: True, until=120.0,
    ),
    Situation(
        "hang, callers leave after 2.5 s", leavers_before_a_hang, "opens by silence within 20 s",
        closes_within(20.0, 20.0), trouble=(20.0, 40.0), until=90.0,
    ),
    Situation(
        "hang, callers leave after 2.5 s, `slow_call_duration` 500 ms", leavers_with_slow_calls,
        "opens within 1 s + what `minimum_calls` needs", closes_within(20.0, 14.0), trouble=(20.0, 40.0), until=90.0,
        policy={"slow_call_seconds": 0.5},
    ),
    Situation(
        "50 calls in flight hang, `slow_call_duration` 1 s", calls_in_flight, "opens within 2 s",
        opens_within(2.0), trouble=(15.0, 40.0), until=90.0, policy={"slow_call_seconds": 1.0},
    ),
    Situation(
        "streams, head after 100 ms, `slow_call_duration` 1 s", streams_and_slow_calls, "never opens", never_opens,
        policy={"slow_call_seconds": 1.0},
    ),
    Situation(
        "100 streams of a pod cut at once, 50 good a second", streams_cut_at_once, "never opens", never_opens,
    ),
    Situation(
        "a pod of ten dies with 50 calls in flight", pod_of_ten_dies, "never opens", never_opens, until=40.0,
    ),
    Situation(
        "start: refused for 11 s", slow_start, "served at once", closes_within(0.5), trouble=(0.0, 11.0),
        policy={"warm_up_seconds": 30.0},
    ),
    Situation(
        "503 with `Retry-After: 30`", asked_to_wait, "at most 3 probes", lambda r: r.lost <= 8 + 5,
        trouble=(10.0, 40.0), until=120.0,
    ),
)  # fmt: skip
