"""What workers say of their breakers: passed on by control, and told anew where control did not answer."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

import pytest

from sidecar.core.breaker import Breaker
from sidecar.core.fleet import Fleet, Reach
from sidecar.core.fleet.encoding import decode, encode
from sidecar.core.fleet.keys import breaker_key
from sidecar.core.fleet.messages import Decision, FleetBatch, PermitAsk
from sidecar.core.outcome import Kind, Outcome
from sidecar.core.snapshot import BreakerPolicy
from sidecar.core.transition import State, TransitionReason
from sidecar.runtime.fleet.acting import Acting
from sidecar.runtime.workers import kinds, pod_link
from sidecar.runtime.workers.channel import NoAnswer
from sidecar.runtime.workers.control_end import ControlEnd
from sidecar.runtime.workers.fleet_in_pod import FleetInPod
from sidecar.runtime.workers.hub import Hub, WorkerLink
from sidecar.runtime.workers.pod_link import PodLink
from sidecar.runtime.workers.relaying import Relaying
from sidecar.runtime.workers.shared_breakers import SharedBreakers

POD = "pod"


class Channel:
    """What a worker was told."""

    def __init__(self) -> None:
        self.told: list[FleetBatch] = []

    def tell(self, kind: str, body: tuple[bytes, ...]) -> bool:
        assert kind == kinds.SHARED
        self.told += map(decode, body)
        return True


class Workers:
    """A hub with links that only remember."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}
        self.on_joined: list[Any] = []
        self.on_left: list[Any] = []
        self.present: list[WorkerLink] = []

    def join(self, number: int) -> tuple[WorkerLink, Channel]:
        link, channel = WorkerLink(number, number, 0.0), Channel()
        link.channel = cast(Any, channel)
        self.present.append(link)
        for tell in self.on_joined:
            tell(link)
        return link, channel


def opened(sender: str) -> bytes:
    decision = Decision("r/u@1", 0, 1, State.OPEN, sender, POD, left_seconds=5.0, wait_seconds=5.0)
    return encode(FleetBatch(sender, POD, (decision,)))


async def test_what_one_worker_says_all_others_hear_and_those_that_come_later() -> None:
    hub = Workers()
    relaying = Relaying(cast(Hub, hub), POD, lambda: 100.0, kinds.SHARED)
    (first, own), (_, other) = hub.join(1), hub.join(2)

    await hub.handlers[kinds.SHARED](first, (b"garbage", opened("one")))
    _, later = hub.join(3)

    for channel in (other, later):
        (item,) = channel.told[-1].items
        assert isinstance(item, Decision)
        assert (item.state, item.decider, item.left_seconds) == (State.OPEN, "one", 5.0)
    assert own.told == []
    assert repr(relaying) == "<Relaying 1 workers, 1 passed, 1 refused>"


class Control:
    """A control process that answers or hangs."""

    is_connected = True

    def __init__(self) -> None:
        self.hangs = False
        self.asked = asyncio.Event()

    def tell(self, _kind: str, _body: Any) -> bool:
        return not self.hangs

    async def ask(self, kind: str, _body: Any, _seconds: float) -> None:
        assert kind == kinds.LINKED
        self.asked.set()
        if self.hangs:
            raise NoAnswer("too slow")


@pytest.mark.parametrize(("hangs", "reach"), [(False, Reach.POD), (True, Reach.ALONE)])
async def test_a_worker_is_heard_in_its_pod_while_control_answers_and_nowhere_where_it_hangs(
    hangs: bool, reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_link, "LOOK_SECONDS", 0.0)
    control = Control()
    control.hangs = hangs
    clock = asyncio.get_running_loop().time
    shared = SharedBreakers(POD, cast(ControlEnd, control), lambda _: None, clock)
    link = PodLink(cast(ControlEnd, control))
    link.on_found.append(shared.connected)
    link.on_lost.append(shared.lost)
    link.found()
    assert shared.fleet.reach is Reach.POD

    look = asyncio.create_task(link.part.live())
    await control.asked.wait()
    control.asked.clear()
    await control.asked.wait()
    assert shared.fleet.reach is reach
    control.hangs = False
    control.asked.clear()
    await control.asked.wait()
    control.asked.clear()
    await control.asked.wait()
    assert shared.fleet.reach is Reach.POD, "it answers again"
    look.cancel()
    with pytest.raises(asyncio.CancelledError):
        await look


async def test_control_is_to_be_replaced_when_it_had_no_answer_to_several_questions_on_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pod_link, "LOOK_SECONDS", 0.0)
    control = Control()
    link = PodLink(cast(ControlEnd, control))
    told: list[str] = []
    link.on_changed.append(lambda: told.append("answers" if link.is_answering else "does not"))
    link.on_hung.append(lambda: told.append("hangs"))
    link.found()
    look = asyncio.create_task(link.part.live())

    async def asked(times: int) -> None:
        for _ in range(times):
            control.asked.clear()
            await control.asked.wait()

    await asked(2)
    control.hangs = True
    await asked(pod_link.MOST_UNANSWERED - 1)
    assert told == ["answers", "does not"]
    await asked(1)
    assert told == ["answers", "does not", "hangs"]
    control.hangs = False
    await asked(2)
    control.hangs = True
    await asked(2)
    assert told == ["answers", "does not", "hangs", "answers", "does not"]
    look.cancel()
    with pytest.raises(asyncio.CancelledError):
        await look


# Breakers of a fleet


KEY = breaker_key("r", "u", (), (), BreakerPolicy())


class Process:
    """A worker whose breaker is of a fleet. What it says in its pod is remembered."""

    def __init__(self, name: str) -> None:
        self.now = 100.0
        self.breaker = Breaker("r", "u", BreakerPolicy(), random.Random(1), self.now)
        self.fleet = Fleet(name, POD)
        self.fleet.join(KEY, self.breaker, self.now)
        self.said: list[bytes] = []
        self.acting = Acting(self.fleet, lambda: self.now, lambda _: None, lambda: None)
        self.in_pod = FleetInPod(self.acting, cast(ControlEnd, self))
        self.may_tell = True

    def tell(self, kind: str, messages: tuple[bytes, ...]) -> bool:
        assert kind == kinds.FLEET_SHARED
        self.said += messages
        return self.may_tell

    def fail(self) -> None:
        answer = self.breaker.admit(self.now)
        if answer.is_admitted:
            permit = answer.own()
            permit.sent(None, self.now)
            permit.judge(Outcome(Kind.ANSWERED, 500, error_type="500"), self.now)
            permit.close(self.now)

    def act(self) -> None:
        """Until nothing is due for a while."""
        for _ in range(3):
            self.now += 0.1
            self.acting.act()

    async def to(self, other: Process) -> None:
        self.act()
        other.now = self.now
        said, self.said = self.said, []
        await other.in_pod.heard(tuple(said))
        other.acting.act()


async def test_without_their_redis_workers_of_one_pod_open_together() -> None:
    one, other = Process("one"), Process("other")
    for process in (one, other):
        process.in_pod.found()
        process.acting.alone()
        assert process.fleet.reach is Reach.POD
    for failing, hearing in ((one, other), (other, one), (one, other), (other, one), (one, other)):
        assert (one.breaker.state, other.breaker.state) == (State.CLOSED, State.CLOSED)
        failing.fail()
        await failing.to(hearing)
    assert (one.breaker.state, other.breaker.state) == (State.OPEN, State.OPEN)


async def test_a_worker_whose_link_alone_is_down_hears_the_fleet_by_a_sibling() -> None:
    linked, other = Process("linked"), Process("other")
    for process in (linked, other):
        process.in_pod.found()
    linked.acting.linked(2)
    other.acting.alone()
    peer = Decision(KEY, 1, 0, State.OPEN, "peer", "elsewhere", left_seconds=5.0, wait_seconds=5.0)
    linked.acting.heard(encode(FleetBatch("peer", "elsewhere", (peer,))), 0.0)
    await linked.to(other)
    assert linked.fleet.reach is Reach.FLEET
    await other.to(linked)
    await linked.to(other)
    linked.now = other.now = 102.0
    await linked.to(other)
    assert other.breaker.state is State.OPEN
    assert other.breaker.history[-1].reason is TransitionReason.PEERS


async def test_what_cannot_be_said_in_the_pod_leaves_a_worker_alone() -> None:
    process = Process("one")
    process.in_pod.found()
    process.may_tell = False
    process.fail()
    process.now += 1.0
    process.acting.act()
    assert process.fleet.reach is Reach.ALONE
    process.acting.linked(3)
    assert process.fleet.reach is Reach.FLEET
    process.acting.alone()
    assert process.fleet.reach is Reach.ALONE
    process.in_pod.found()
    assert process.fleet.reach is Reach.POD


async def test_permits_are_asked_for_in_one_place() -> None:
    process = Process("one")
    process.in_pod.found()
    process.acting.linked(2)
    process.breaker.machine.trip(TransitionReason.CONSECUTIVE_FAILURES, process.now)
    process.now += 6.0
    process.act()
    assert not process.breaker.admit(process.now).is_admitted
    process.act()
    assert len(process.acting.outbox().asks) == 1
    assert not any(isinstance(item, PermitAsk) for one in process.said for item in decode(one).items)

    process.acting.alone()
    assert not process.breaker.admit(process.now).is_admitted
    process.act()
    assert sum(isinstance(item, PermitAsk) for one in process.said for item in decode(one).items) == 1
