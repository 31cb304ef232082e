"""One upstream as it lives: its endpoints, its limits, and who may open or wait for a connection.

All decisions are synchronous and return what to do (`Grant`); only what `open` starts awaits. Owned by the event
loop. Limits are counted here over all endpoints: connections (open and being opened), exchanges that wait for one,
exchanges in flight.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto

from sidecar.core import balance
from sidecar.core.errors import Reason
from sidecar.core.snapshot import Endpoint, Upstream
from sidecar.upstream.connection import UpstreamConnection
from sidecar.upstream.pool import Pool

Waiter = Callable[[UpstreamConnection | None], None]
"""Called once with a connection, or with None for the right to open one (its slot is reserved)."""


class Grant(Enum):
    CONNECT = auto()
    """Open one: a slot is reserved, and `open` must follow."""
    WAIT = auto()
    REFUSED = auto()


class ConnectFailed(Exception):
    """No connection could be had; `reason` says why, the text is for the log."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


Opened = Callable[["UpstreamConnection | ConnectFailed"], None]


class Cluster:
    """The live side of one `Upstream`; a reload may give it another of the same endpoints (`adopt`)."""

    def __init__(self, policy: Upstream, rng: random.Random, clock: Callable[[], float]) -> None:
        self.policy = policy
        self.name = policy.name
        self.in_flight = 0
        """Exchanges that were admitted and have not settled; whoever settles takes its own off."""
        self.connections = 0
        """Open and being opened."""
        self.overflows = 0
        """Exchanges refused by a limit."""
        self._rng = rng
        self.looked_at = clock()
        """The time at the last `close_idle`: near enough for how long a connection has been idle."""
        self.waiters: deque[Waiter] = deque()
        self._is_handing_over = False
        self._answers: dict[Endpoint, tuple[Endpoint, ...]] = {
            endpoint: (endpoint,) if endpoint.is_literal else () for endpoint in policy.endpoints
        }
        self.pools: list[Pool] = []
        self.single: Pool | None = None
        """The only one, if there is one alone."""
        self._rebuild()

    def __repr__(self) -> str:
        return (
            f"<Cluster {self.name} endpoints={len(self.pools)} connections={self.connections}"
            f" in_flight={self.in_flight} pending={self.pending}>"
        )

    @property
    def pending(self) -> int:
        """Exchanges that wait for a connection."""
        return len(self.waiters)

    # Endpoints

    def names(self) -> list[Endpoint]:
        """The configured endpoints that a resolver must look up."""
        return [endpoint for endpoint in self._answers if not endpoint.is_literal]

    def set_addresses(self, name: Endpoint, addresses: Iterable[Endpoint]) -> None:
        """A resolver's answer for one configured name; pools of addresses that stay are kept."""
        if name in self._answers:
            self._answers[name] = tuple(addresses)
            self._rebuild()

    def _rebuild(self) -> None:
        wanted = dict.fromkeys(address for answer in self._answers.values() for address in answer)
        kept = {pool.endpoint: pool for pool in self.pools}
        for endpoint, pool in kept.items():
            if endpoint not in wanted:
                pool.retire()
        self.pools = [kept.get(endpoint) or Pool(self, endpoint) for endpoint in wanted]
        self.single = self.pools[0] if len(self.pools) == 1 else None

    def pick(self, avoid: Pool | None = None) -> Pool | None:
        """The endpoint for the next attempt, None when no name has been resolved yet."""
        return self.single or balance.pick(self.pools, self._rng, avoid)

    # Limits

    def admit(self) -> bool:
        """Take one of `max_requests`; False when all are in use."""
        if self.in_flight >= self.policy.limits.max_requests:
            self.overflows += 1
            return False
        self.in_flight += 1
        return True

    def grant(self) -> Grant:
        """What an exchange that found no idle connection may do."""
        limits = self.policy.limits
        if self.connections >= limits.max_connections:
            self._close_one_idle()
        if self.connections < limits.max_connections:
            self.connections += 1
            return Grant.CONNECT
        if len(self.waiters) < limits.max_pending:
            return Grant.WAIT
        self.overflows += 1
        return Grant.REFUSED

    def _close_one_idle(self) -> None:
        idle = self._take_idle()
        if idle is not None:
            idle.abort()

    def _take_idle(self) -> UpstreamConnection | None:
        return next((pool.take() for pool in self.pools if pool.idle_count), None)

    def wait(self, waiter: Waiter) -> None:
        self.waiters.append(waiter)

    def stop_waiting(self, waiter: Waiter) -> None:
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def hand_to_waiter(self, connection: UpstreamConnection) -> bool:
        """Give a connection that has become free to the first who waits; False when it is to lie idle.

        One who has no time left gives it back within the call. Then the next one gets it from the loop here, not
        from within: hundreds who run out of time together would be as many calls deep, and break off half-way.
        """
        if not self.waiters or self._is_handing_over:
            return False
        self._is_handing_over = True
        try:
            free: UpstreamConnection | None = connection
            while free is not None:
                self.waiters.popleft()(free)
                free = self._take_idle() if self.waiters else None
        finally:
            self._is_handing_over = False
        return True

    def connection_closed(self) -> None:
        """A connection, or the attempt to open one, has ended: its slot goes to the first who waits."""
        self.connections -= 1
        self._hand_out_slots()

    def adopt(self, policy: Upstream) -> None:
        """Go on under new limits and timeouts, which the policy of the same endpoints has."""
        self.policy = policy
        self._hand_out_slots()

    def _hand_out_slots(self) -> None:
        while self.waiters and self.connections < self.policy.limits.max_connections:
            self.connections += 1
            self.waiters.popleft()(None)

    # Connections

    def open(self, pool: Pool, then: Opened) -> Callable[[], None]:
        """Open a connection in the slot that `grant` reserved, and call `then` with it, or with why not.

        Returns what calls it off: `then` is not called any more, and a connection that is there already goes to the
        pool for the next one. The slot comes free again in every case that leaves no connection, also when the task
        was cancelled before its first step.
        """
        task = asyncio.get_running_loop().create_task(self._connect(pool))
        is_wanted = True

        def call_off() -> None:
            nonlocal is_wanted
            is_wanted = False
            task.cancel()

        def done(task: asyncio.Task[UpstreamConnection]) -> None:
            error = None if task.cancelled() else task.exception()
            if task.cancelled() or error is not None:
                self.connection_closed()
            elif not is_wanted:
                task.result().release(is_reusable=True)
            if isinstance(error, ConnectFailed) and is_wanted:
                then(error)
            elif error is not None and not isinstance(error, ConnectFailed):
                raise error  # a mistake of ours: the loop's exception handler tells it
            elif is_wanted and not task.cancelled():
                then(task.result())

        task.add_done_callback(done)
        return call_off

    async def _connect(self, pool: Pool) -> UpstreamConnection:
        connection = UpstreamConnection(pool)
        is_connected = False
        try:
            async with asyncio.timeout(self.policy.connect_seconds):
                await _open(connection, pool.endpoint)
            is_connected = True
        except TimeoutError as error:
            detail = f"no connection to {pool.endpoint} within {self.policy.connect_seconds:g} s"
            raise ConnectFailed(Reason.CONNECTION_TIMEOUT, detail) from error
        except OSError as error:
            raise ConnectFailed(Reason.CONNECTION_REFUSED, f"{pool.endpoint}: {_why(error)}") from error
        finally:
            if not is_connected:
                connection.abort()
        pool.add(connection)
        return connection

    def close_idle(self, now: float) -> None:
        """Close connections that were idle for longer than `timeouts.idle`; called about once a second."""
        self.looked_at = now
        for pool in self.pools:
            pool.close_idle(now - self.policy.idle_seconds)

    def retire(self) -> None:
        """The upstream has left the configuration: close what is idle, let the rest finish."""
        for pool in self.pools:
            pool.retire()

    @property
    def is_idle(self) -> bool:
        """True when no exchange is here and no connection open."""
        return not (self.in_flight or self.connections or self.waiters)

    def dissolve(self) -> None:
        """The end of a retired one: pools and cluster point at each other, which only a collection would undo."""
        self.pools = []
        self.single = None


async def _open(connection: UpstreamConnection, endpoint: Endpoint) -> None:
    loop = asyncio.get_running_loop()
    if endpoint.path is not None:
        await loop.create_unix_connection(lambda: connection, endpoint.path)
    else:
        await loop.create_connection(lambda: connection, endpoint.host, endpoint.port)


def _why(error: OSError) -> str:
    """The system's words for it: asyncio's own text repeats the address, and differs between loops."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
