"""One budget of memory over all connections (SPEC 4): what they hold, and who is to go when it is too much.

Each connection counts 4 KiB from its beginning to its end. What it holds above that, bytes that wait for somebody, is
an `Account`, which exists only while there is such a thing: plain requests cost nothing here. An account is charged
in steps of 4 KiB by its owner and given back at one place. The sum of all charges is `used_bytes`.

Decides the numbers alone: it knows no socket and closes nobody. Owned by the event loop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from enum import Enum
from heapq import nlargest
from typing import Any, Final

from sidecar.core.contract import SLOTTED
from sidecar.core.path_dataclass import dataclass

STEP_BYTES: Final = 4096
CONNECTION_BYTES: Final = 4096
"""For each open connection, with clients and with upstreams: its objects, and a small request under way."""
SECURED_BYTES: Final = 32 * 1024
"""For each connection by TLS beside that: OpenSSL's state and buffers, measured as 31 KiB."""
FIELD_BYTES: Final = 200
"""For each field of a head that was read, beside its bytes: a field is a tuple and three `bytes` objects."""
BUFFERS: Final = 4
"""How many buffers a connection has a share for. An answer that is not taken fills two here, and the kernel has one
of it with the client (TCP_NOTSENT_LOWAT) and two with the upstream (SO_RCVBUF, which it doubles): five, for two
connections."""
MOST_BUFFER_BYTES: Final = 64 * 1024
LEAST_BUFFER_BYTES: Final = 4096
CEILING_SHARE: Final = 0.9
"""Of the limit: from here on connections are closed, since more arrives before the first of them has ended."""
RELIEF_SHARE: Final = 0.8
"""Of the limit: down to here, so that not every next byte closes somebody."""
PRESSED_SHARE: Final = 0.5
"""Of the limit that connections keep while the container is short of memory: what else lies there is not theirs."""
ONE_ADDRESS_SHARE: Final = 0.1
"""Of the limit: an address whose connections hold more is looked at before all others."""


class Held(Enum):
    """What a connection held that was closed for it."""

    HEAD = "head"
    """The beginning of a request's head."""
    BODY = "body"
    """A request's body that does not go on."""
    ANSWER = "answer"
    """What its client does not take."""
    PIPELINE = "pipeline"
    """Requests behind the one that is being answered. That one is answered."""
    TUNNEL = "tunnel"
    HANDSHAKE = "handshake"
    """Of TLS, and not over."""
    IDLE = "idle"
    """Nothing but its own 4 KiB."""


class Account:
    """What one connection holds above its own 4 KiB."""

    __slots__ = ("_budget", "charged_bytes", "head_bytes", "kernel_bytes", "moved_at")

    def __init__(self, budget: MemoryBudget, now: float) -> None:
        self._budget = budget
        self.charged_bytes = 0
        """A multiple of 4 KiB."""
        self.kernel_bytes = 0
        """What the kernel may keep for it while its owner does not read or its peer takes nothing: an estimate."""
        self.head_bytes = 0
        """Of the request under way: its charge, see `charge_of_head`."""
        self.moved_at = now
        """When its peer last sent or took a byte, as far as that was seen."""

    def __repr__(self) -> str:
        return f"<Account {self.charged_bytes} bytes>"

    def hold(self, size: int, kernel_bytes: int = 0) -> None:
        """It holds so many bytes now; 0 gives everything back."""
        charged = -(-size // STEP_BYTES) * STEP_BYTES
        change, kernel_change = charged - self.charged_bytes, kernel_bytes - self.kernel_bytes
        if change or kernel_change:
            self.charged_bytes = charged
            self.kernel_bytes = kernel_bytes
            self._budget.charge(change, kernel_change)


def settled(
    account: Account | None, budget: MemoryBudget, now: float, size: int, kernel_bytes: int = 0
) -> Account | None:
    """The account of a connection that holds `size` bytes beside its head, and so many in the kernel: made when
    there is something to hold, None once there is nothing."""
    if account is None:
        if not size and not kernel_bytes:
            return None
        account = Account(budget, now)
    size += account.head_bytes
    account.hold(size, kernel_bytes)
    return account if size or kernel_bytes else None


class MemoryBudget:
    """The counter. `on_over` is called when it rises above the ceiling, and closes nobody within the call."""

    __slots__ = (
        "_ceiling", "_estimated_bytes", "_floor", "_grow_below", "_observed_bytes", "_own_bytes", "_shrink_above",
        "buffer_bytes", "closed", "connections", "is_full", "limit_bytes", "on_over", "refused", "used_bytes",
    )  # fmt: skip

    def __init__(self, limit_bytes: int = sys.maxsize) -> None:
        self.limit_bytes = limit_bytes
        self._ceiling = self._floor = 0
        self._set_ceiling(limit_bytes)
        self.used_bytes = 0
        """What connections hold in this process, and what the kernel holds for them: as the container says, or as the
        accounts estimate it if that is more."""
        self._own_bytes = self._estimated_bytes = self._observed_bytes = 0
        self.connections = 0
        """With clients and with upstreams."""
        self.is_full = False
        """Over the limit, and there is nobody to close: large requests are refused, connections not accepted."""
        self.on_over: Callable[[], None] = _nobody
        self.closed = dict.fromkeys(Held, 0)
        self.refused = 0
        """Requests that were answered 503 for it."""
        self.buffer_bytes = MOST_BUFFER_BYTES
        """What one connection may have waiting in each direction before its source is held back. Follows the number
        of connections."""
        self._shrink_above = self._grow_below = 0
        self._set_level()

    def __repr__(self) -> str:
        return f"<MemoryBudget {self.used_bytes} of {self.limit_bytes} by {self.connections} connections>"

    # What is charged

    def joined(self) -> None:
        """A connection has opened."""
        self.connections += 1
        if self.connections > self._shrink_above:
            self._set_level()
        self.charge(CONNECTION_BYTES)

    def left(self) -> None:
        """A connection has closed."""
        self.connections -= 1
        self.charge(-CONNECTION_BYTES)
        if self.connections < self._grow_below:
            self._set_level()

    def charge(self, change: int, kernel_change: int = 0) -> None:
        """For accounts alone."""
        self._own_bytes += change
        self._estimated_bytes += kernel_change
        self._add_up()

    def observe(self, kernel_bytes: int, *, is_pressed: bool) -> None:
        """What the container says of itself, about once a second: what its sockets hold, and whether its limit is
        close, whoever brought it there."""
        is_tighter = self._set_ceiling(
            int(self.limit_bytes * PRESSED_SHARE) if is_pressed else self.limit_bytes
        )
        self._observed_bytes = kernel_bytes
        self._add_up(is_tighter=is_tighter)

    def resize(self, limit_bytes: int) -> None:
        """A reload brought another limit."""
        self.limit_bytes = limit_bytes
        is_tighter = self._set_ceiling(limit_bytes)
        self._set_level()
        self._add_up(is_tighter=is_tighter)

    def _add_up(self, *, is_tighter: bool = False) -> None:
        before = self.used_bytes
        used = self.used_bytes = self._own_bytes + max(self._estimated_bytes, self._observed_bytes)
        if used > self._ceiling and (used >= before or is_tighter):
            self.on_over()

    def _set_ceiling(self, limit_bytes: int) -> bool:
        """Returns whether there is less than before: who was not over may be now, though nothing has come."""
        before = self._ceiling
        self._ceiling, self._floor = int(limit_bytes * CEILING_SHARE), int(limit_bytes * RELIEF_SHARE)
        return self._ceiling < before

    # What follows

    @property
    def is_over(self) -> bool:
        return self.used_bytes > self._ceiling

    @property
    def has_none_left(self) -> bool:
        """Nobody new can be let in until somebody has gone."""
        return self.used_bytes > self.limit_bytes

    @property
    def needed_bytes(self) -> int:
        """To be given back once it is over; 0 while it is not."""
        return self.used_bytes - self._floor if self.is_over else 0

    def may_begin(self, size: int) -> bool:
        """Whether a request whose head is charged `size` may begin. Small ones always may."""
        if self.is_full and size > STEP_BYTES:
            self.refused += 1
            return False
        return True

    def _set_level(self) -> None:
        """A part of a connection's share, as a power of two, so that it changes seldom."""
        share = self.limit_bytes // (BUFFERS * max(self.connections, 1))
        level = MOST_BUFFER_BYTES
        while level > share and level > LEAST_BUFFER_BYTES:
            level //= 2
        self.buffer_bytes = level
        most, least = level == MOST_BUFFER_BYTES, level == LEAST_BUFFER_BYTES
        self._shrink_above = sys.maxsize if least else self.limit_bytes // (BUFFERS * level)
        self._grow_below = 0 if most else self.limit_bytes // (4 * BUFFERS * level)


def charge_of_head(size: int, fields: int) -> int:
    """Of a whole head of `size` bytes."""
    return size + FIELD_BYTES * fields


@dataclass(frozen=True, **SLOTTED)
class Claim:
    """What a connection's end would give back."""

    holder: Any
    address: str
    size: int
    seconds: float
    """Since its peer last sent or took a byte."""
    is_own: bool = False
    """Its peer is this process too: it holds what others ask for, and carries calls of many."""

    @property
    def weight(self) -> float:
        """Bytes × seconds: who holds most for longest goes first."""
        return self.size * max(self.seconds, 0.001)


def choose(claims: Iterable[Claim], needed_bytes: int, limit_bytes: int) -> list[Claim]:
    """Those whose end gives back `needed_bytes`, or all if that is not enough.

    Where more than a tenth of the limit belongs to one address, its connections go first, address by address, the
    greediest before the others: thousands of connections of one stranger are to cost that stranger. This process's
    own go last: for its calls to itself they would be failures of a peer.
    """
    by_address: dict[str, list[Claim]] = {}
    within: list[Claim] = []
    for claim in claims:
        (within if claim.is_own else by_address.setdefault(claim.address, [])).append(claim)
    sums = {address: sum(claim.size for claim in own) for address, own in by_address.items()}
    greedy = [address for address, size in sums.items() if size > limit_bytes * ONE_ADDRESS_SHARE]
    chosen: list[Claim] = []
    for address in sorted(greedy, key=sums.__getitem__, reverse=True):
        needed_bytes -= _take(by_address.pop(address), needed_bytes, chosen)
    needed_bytes -= _take([claim for own in by_address.values() for claim in own], needed_bytes, chosen)
    _take(within, needed_bytes, chosen)
    return chosen


def _take(claims: list[Claim], needed_bytes: int, chosen: list[Claim]) -> int:
    """Add the heaviest of `claims` to `chosen` until they come to `needed_bytes`; returns what they come to."""
    taken = 0
    if needed_bytes <= 0:
        return 0
    for claim in nlargest(len(claims), claims, key=lambda claim: claim.weight):
        if taken >= needed_bytes:
            break
        chosen.append(claim)
        taken += claim.size
    return taken


def _nobody() -> None:
    """Until somebody is there to close connections."""
