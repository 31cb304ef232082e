"""What an overloaded listener does in each turn of the loop: it takes up a few of those who wait.

Decides how a turn's share is split between new connections, which wait in the kernel's queue, and requests on
connections that are here, which wait at the gate; refuses those in front of a queue that is too long; and lets in at
the end who is left. How much is taken in a turn, `pressure.py` says; who of the gate is next, `gate.py`. Owned by its
listener, which opens and shuts the gate, for all its overloads.
"""

from __future__ import annotations

import contextlib
from typing import Final

from sidecar.core.memory_budget import Account
from sidecar.downstream.accept_queues import AcceptQueues
from sidecar.downstream.gate import Gate, Place, Waiting
from sidecar.downstream.refusing import Refusing
from sidecar.forwarding.service import Service
from sidecar.transport import kernel

ACCEPT_COST: Final = 3
"""Of a new connection with its first request, in requests on a connection that is there."""
RESUME_SECONDS: Final = 0.001
RESUMES_A_TURN: Final = 256
"""Connections that are read again in one turn when an overload has ended."""


class TakingUp:
    """See the module."""

    __slots__ = ("_at_gate", "_gone", "_queues", "_refused", "_refusing", "_service")

    def __init__(self, queues: AcceptQueues, service: Service) -> None:
        self._queues = queues
        self._service = service
        self._refusing = Refusing(service)
        self._at_gate = Account(service.memory, service.clock())
        """What was read of those who wait there. What stands behind another request counts with its connection
        too."""
        self._refused = 0
        """In all overloads that have ended."""
        self._gone = 0
        """Who left in those while they waited for their turn, and who has left the kernel's queue in any."""

    def __repr__(self) -> str:
        return f"<TakingUp {self._refused} refused before, {self._gone} gone>"

    def refused(self, gate: Gate | None) -> int:
        """How many requests were refused so far, those at the `gate` of now included."""
        return self._refused + (gate.refused if gate is not None else 0)

    def gone(self, gate: Gate | None) -> int:
        """How many left while they waited, in the same way."""
        return self._gone + (gate.gone if gate is not None else 0)

    def take_connections(self, count: int) -> int:
        """New ones, for up to half of `count` requests; at least one. Returns how many requests are left for the
        gate."""
        if not count:
            return 0
        taken, left = self._queues.take_waiting(max(1, count // (2 * ACCEPT_COST)))
        self._gone += left
        return count - min(ACCEPT_COST * taken, count // 2)

    def refuse_unread(self, gate: Gate, now: float, *, is_stranger: bool) -> None:
        """Those in front of a queue that is too long: whoever came last would otherwise be forgotten in it. Only
        where they can be told in clear text."""
        for queue in self._queues.in_kernel():
            with contextlib.suppress(OSError):  # there are fewer, or no file is left
                for _ in range(gate.too_many(kernel.waiting(queue), now)):
                    self._refusing.refuse(queue.accept()[0], is_stranger=is_stranger)

    def take_requests(self, gate: Gate, count: int, now: float) -> None:
        """Up to `count` of those who wait at the gate."""
        gate.turn(count, now)
        self._at_gate.hold(gate.held_bytes)

    def end(self, gate: Gate) -> None:
        """The overload is over: nobody has to wait any more."""
        self._refused += gate.refused
        self._gone += gate.gone
        self._at_gate.hold(0)
        self._let_all_in(gate.close())

    def close(self, gate: Gate | None) -> None:
        """Nobody is served any more."""
        self._refusing.close()
        if gate is not None:
            gate.close()
            self._at_gate.hold(0)

    def _let_all_in(self, left: list[Waiting]) -> None:
        """In slices: thousands may have been waiting for something to do."""
        for one in left[-RESUMES_A_TURN:]:
            if one.place in (Place.WATCHED, Place.QUEUED):
                one.let_in(is_refused=False)
        del left[-RESUMES_A_TURN:]
        if left:
            self._service.loop.call_later(RESUME_SECONDS, self._let_all_in, left)
