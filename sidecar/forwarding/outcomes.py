"""Writes into its route's ring what came of each request: every attempt, or that the breaker let none go.

Called once for each exchange, when it ends. The usual case, one attempt with a whole good answer, takes 0.3 µs; all
others go a slower way. Owned by the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Final

from sidecar.core.errors import Reason
from sidecar.core.outcomes import record
from sidecar.core.outcomes.store import BLOCK_BYTES, OutcomeRing
from sidecar.core.transition import State, Transition
from sidecar.forwarding.live import Recorder

if TYPE_CHECKING:
    from sidecar.forwarding.attempt import Attempt
    from sidecar.upstream.lease import LeasePool

MOST_POOLS: Final = 256
"""Whose numbers are remembered; when they are so many, all are forgotten, and asked for again."""
NOT_ADMITTED: Final = frozenset({Reason.CIRCUIT_OPEN, Reason.OVERLOADED})
"""Of requests without an attempt, those that would have been sent."""

_pack: Final = record.FORM.pack_into
_pack_plain: Final = record.PLAIN_FORM.pack_into
_PLAIN_SUCCESS: Final = record.PLAIN_SUCCESS
_SIZE: Final = record.RECORD_BYTES
_CLOSED_STATE: Final = State.CLOSED
_NONE: Final = record.NONE


class OutcomeWriter(Recorder):
    """Of one route, through all reloads that keep its `LiveRoute`."""

    __slots__ = ("_home", "_numbers", "_ring")

    def __init__(self, ring: OutcomeRing, home: str) -> None:
        """`home`: the upstream that is meant where a breaker refuses and nobody says which."""
        self._ring = ring
        self._home = home
        self._numbers: dict[LeasePool | None, int] = {}

    def keep(self, attempts: Sequence[Attempt], reason: Reason | None) -> None:
        if len(attempts) > 1 or reason is not None:
            for one in attempts:
                self._keep_attempt(one)
            return
        attempt = attempts[0]
        permit, status = attempt.permit, attempt.status
        if permit.own is not None or status >= 400 or permit.state is not _CLOSED_STATE:
            self._keep_attempt(attempt)
            return
        ring, sent_at, head_at = self._ring, permit.sent_at, permit.head_at
        seconds = attempt.ended - sent_at
        offset = ring.offset
        if offset == BLOCK_BYTES:
            offset = ring.turn()
        _pack_plain(
            ring.block,
            offset,
            sent_at,
            seconds if head_at == inf else head_at - sent_at,
            seconds,
            self._numbers.get(attempt.pool) or self._number(attempt),
            status,
            _PLAIN_SUCCESS,
        )
        ring.offset = offset + _SIZE

    def refuse(self, at: float, reason: Reason, state: State, refused_by: Transition | None) -> None:
        upstream = self._home if refused_by is None else refused_by.upstream
        number = self._ring.number(upstream, "")
        self._put(at, -1.0, 0.0, number, 0, 0, _NONE, record.STATE_CODES[state], record.REASON_CODES[reason])

    def _keep_attempt(self, attempt: Attempt) -> None:
        verdict, state, sent_at, head, whole = attempt.judged
        if head is None:
            head = whole if attempt.status else -1.0
        self._put(
            attempt.started if sent_at is None else sent_at,
            head,
            whole,
            self._numbers.get(attempt.pool) or self._number(attempt),
            attempt.status,
            min(attempt.resend, record.MOST_ATTEMPT) | (record.IS_HEDGE if attempt.is_hedge else 0),
            record.VERDICT_CODES[verdict],
            record.STATE_CODES[state],
            _NONE if attempt.reason is None else record.REASON_CODES[attempt.reason],
        )

    def _put(
        self,
        at: float,
        head: float,
        whole: float,
        number: int,
        status: int,
        attempt: int,
        verdict: int,
        state: int,
        reason: int,
    ) -> None:
        ring = self._ring
        offset = ring.offset
        if offset == BLOCK_BYTES:
            offset = ring.turn()
        _pack(ring.block, offset, at, head, whole, number, status, attempt, verdict, state, reason)
        ring.offset = offset + _SIZE

    def _number(self, attempt: Attempt) -> int:
        """Of its endpoint, where it is not among those remembered."""
        endpoint, numbers = attempt.endpoint, self._numbers
        number = self._ring.number(attempt.upstream, "" if endpoint is None else str(endpoint))
        if len(numbers) >= MOST_POOLS:
            numbers.clear()
        numbers[attempt.pool] = number
        return number
