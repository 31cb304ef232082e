"""What all exchanges of one process share. Built and owned by `runtime/datapath.py`."""

from __future__ import annotations

import asyncio
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import field

from mypy_extensions import trait

from sidecar.core.callers import Callers
from sidecar.core.contract import NO_SLOTS, SLOTTED
from sidecar.core.ejection.change import EndpointChange
from sidecar.core.errors import Reason
from sidecar.core.failover import FailoverChange
from sidecar.core.memory_budget import MemoryBudget
from sidecar.core.numbers import Numbers
from sidecar.core.observe import Observe, ObservedExchange
from sidecar.core.path_dataclass import dataclass
from sidecar.core.propagation.chain import PropagationChain
from sidecar.core.request import Asked, Request
from sidecar.core.routing import RoutingTable
from sidecar.core.tracecontext import IdSource
from sidecar.core.transition import State, Transition
from sidecar.forwarding.beside import Beside
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.live import LiveRoute
from sidecar.forwarding.sweep import Expiring, Sweep
from sidecar.transport.turns import Turns

CROWD = 256
"""Exchanges under way: fewer of them hold the loop no longer than 10 ms in one turn."""


class Passed(ABC):
    """One destination that no route names."""

    __slots__ = ()

    route: LiveRoute


@trait
class WaitsForAddress(ABC):
    """An exchange, whose destination's name is being resolved."""

    __slots__ = NO_SLOTS

    @abstractmethod
    def found(self, error: GivenUp | None) -> None:
        """There are addresses, or `error` says why there are none."""


class Passing(ABC):
    """What becomes of requests that no route takes (`passing.py`)."""

    @abstractmethod
    def find(self, request: Request, peer: tuple[str, int] | None) -> Passed:
        """Raises: GivenUp, if it goes nowhere."""

    @abstractmethod
    def is_loop(self, asked: Asked, peer: tuple[str, int] | None) -> bool:
        """Whether an intercepted connection would go round for ever."""

    @abstractmethod
    def is_known(self, passed: Passed, now: float) -> bool:
        """Whether its addresses are known."""

    @abstractmethod
    def wait_for(self, passed: Passed, who: WaitsForAddress) -> None:
        """Have `who` told when they are."""


class NobodyPasses(Passing):
    """Without any listener that passes through."""

    def find(self, request: Request, peer: tuple[str, int] | None) -> Passed:
        raise GivenUp(Reason.NO_ROUTE, "no route takes this request")

    def is_loop(self, asked: Asked, peer: tuple[str, int] | None) -> bool:
        return False

    def is_known(self, passed: Passed, now: float) -> bool:
        return True

    def wait_for(self, passed: Passed, who: WaitsForAddress) -> None: ...


class Shut:
    """Listeners, by name, that are not open to every request. Read by each request, written by drain and pressure."""

    __slots__ = ("closed_to_new", "crowded", "every", "filled", "pressed")

    def __init__(self) -> None:
        self.closed_to_new: frozenset[str] = frozenset()
        """Further requests are answered 503: their last call is over."""
        self.pressed: frozenset[str] = frozenset()
        """They are overloaded."""
        self.every: frozenset[str] = frozenset()
        """Both, so that a request asks once."""
        self.crowded: Callable[[str, float], None] = lambda _listener, _now: None
        """A request of this listener found a crowd."""
        self.filled: Callable[[str], None] = lambda _listener: None
        """A request of this listener found `max_requests` under way."""

    def close_to_new(self, listeners: frozenset[str]) -> None:
        """Their last call is over."""
        self.closed_to_new |= listeners
        self.every = self.closed_to_new | self.pressed

    def press(self, listeners: frozenset[str]) -> None:
        """These are overloaded, and no others."""
        self.pressed = listeners
        self.every = self.closed_to_new | self.pressed


@dataclass(eq=False, **SLOTTED)
class Service:
    """The data path's surroundings. `tables` is replaced as a whole by a reload; the rest stays."""

    loop: asyncio.AbstractEventLoop
    clock: Callable[[], float]
    rng: random.Random
    ids: IdSource
    numbers: Numbers
    """What exchanges that have ended are counted in."""
    observe: Observe
    sweep: Sweep
    turns: Turns
    callers: Callers
    decide: Callable[[bool | None, bytes], bool]
    """(the parent's sampled flag or None, the trace id) -> is sampled."""
    propagation: PropagationChain | None = None
    """The forms of a trace's context beside W3C's; None: there are none."""
    tables: Mapping[str, RoutingTable[LiveRoute]] = field(default_factory=dict)
    """By listener."""
    strangers: frozenset[str] = frozenset()
    """Listeners with `trust: none`: what their callers ask for says nothing of an upstream."""
    strict: frozenset[str] = frozenset()
    """Listeners with `ambiguous: refuse`."""
    has_egress: bool = False
    """Whether any route takes the app's own calls: only then inbound exchanges need to be remembered."""
    exchanges: set[ObservedExchange] = field(default_factory=set)
    """All that are live."""
    postponed: dict[Expiring, tuple[str, str]] = field(default_factory=dict)
    """Exchanges that are no probes before their body is whole; with route and upstream of the breaker that they are
    to ask then: looked at as soon as it lets all through, or nobody."""
    memory: MemoryBudget = field(default_factory=MemoryBudget)
    """Of all connections."""
    open_connections: int = 0
    """With clients, over all listeners."""
    max_open_connections: int = sys.maxsize
    """Connections with clients over all listeners, and as many with upstreams: what the limit of open files is enough
    for (`runtime/file_limits.py`). Beyond it an exchange is `overloaded`, by our own lack."""
    is_draining: bool = False
    """The process is not ready any more, and what is accepted from here on is served once."""
    max_requests: int = sys.maxsize
    """`limits.max_requests`, over all listeners: beyond it, inbound requests are refused, beyond twice as many the
    app's own calls."""
    crowd: int = sys.maxsize
    """So many exchanges are a crowd, whose further ones look at the time that this turn of the loop has taken."""
    shut: Shut = field(init=False)
    """Listeners that take no further request, or not every one."""
    beside: Beside = field(init=False)
    """Hedges, copies of requests, handshakes, and the pod's other workers."""
    departed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a connection or, during a drain, an exchange has ended: who waits for the last clears it and looks."""
    passing: Passing = field(default_factory=NobodyPasses)
    """Who takes what no route takes."""
    on_transition: Callable[[Transition], None] = lambda _: None
    """Who acts on a change of a breaker's state, after it was told: the checks."""
    on_news: Callable[[EndpointChange | FailoverChange], None] = lambda _: None
    """Who hears of upstreams' news: of endpoints after the observers, and of failovers."""

    def __post_init__(self) -> None:
        self.shut = Shut()
        self.beside = Beside(self.loop, self.clock, self.sweep, self.turns)
        self.sweep.others_wait = self._awaits_answer

    def _awaits_answer(self) -> bool:
        """Whether a request is without an answer. From when on that counts against its upstream depends on how fast
        others were answered, and may be long before any deadline: so it must be known if the loop was held."""
        return any(
            not one.status and (not one.attempts or not one.attempts[-1].status) for one in self.exchanges
        )

    def transitioned(self, transition: Transition) -> None:
        """A breaker has changed its state: the one way to say so, from wherever it was done."""
        self.observe.transitioned(transition)
        self.on_transition(transition)
        if self.postponed and transition.to_state is not State.HALF_OPEN:
            self._look_at_postponed((transition.route, transition.upstream))

    def endpoint_changed(self, change: EndpointChange) -> None:
        """An endpoint is used no more, or again."""
        self.observe.endpoint_changed(change)
        self.on_news(change)

    def failed_over(self, change: FailoverChange) -> None:
        """Others take over from an upstream, or no longer."""
        self.on_news(change)

    def _look_at_postponed(self, breaker: tuple[str, str]) -> None:
        now = self.clock()
        for item in [one for one, waits_for in self.postponed.items() if waits_for == breaker]:
            Sweep.remove(item)
            item.due = now
            self.sweep.add(item, now)

    def bound_requests(self, most: int) -> None:
        """`limits.max_requests`."""
        self.max_requests = most
        self.crowd = min(most, CROWD)
