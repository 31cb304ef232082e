"""What is kept of one attempt, or of one request that a breaker refused: 24 bytes, and how they are read again.

What a change of policy would have done is found out from these (`sidecar/tuning/`), so a record has what a breaker
needs to be told once more, and nothing of who asked or for what."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from sidecar.core.contract import SLOTTED
from sidecar.core.errors import Reason
from sidecar.core.outcome import Verdict
from sidecar.core.path_dataclass import dataclass
from sidecar.core.transition import State

FORM: Final = Struct("<dffHHBBBB")
"""When, seconds to the head (below 0: none), seconds in all, number of the endpoint, status, attempt, verdict, state,
reason."""
PLAIN_FORM: Final = Struct("<dffHHI")
"""The same with the last four as one number."""
RECORD_BYTES: Final = FORM.size
NONE: Final = 255
"""In the place of a verdict, or a reason, that there is not."""
IS_HEDGE: Final = 0x80
"""Beside the number of the attempt."""
MOST_ATTEMPT: Final = 0x7F

VERDICTS: Final = tuple(Verdict)
STATES: Final = tuple(State)
REASONS: Final = tuple(Reason)
SUCCESS: Final = VERDICTS.index(Verdict.SUCCESS)
CLOSED: Final = STATES.index(State.CLOSED)
VERDICT_CODES: Final = {verdict: code for code, verdict in enumerate(VERDICTS)}
STATE_CODES: Final = {state: code for code, state in enumerate(STATES)}
REASON_CODES: Final = {reason: code for code, reason in enumerate(REASONS)}
PLAIN_SUCCESS: Final = int.from_bytes(bytes((0, SUCCESS, CLOSED, NONE)), "little")
"""Attempt, verdict, state and reason of a first attempt that had a good answer while the breaker was closed."""


@dataclass(frozen=True, **SLOTTED)
class OutcomeRecord:
    """One attempt; or, without a verdict, a request that came to no attempt."""

    at: float
    """When it was sent, or refused, in seconds on the loop's clock."""
    attempt: int
    """How many there were of its request before it."""
    is_hedge: bool
    endpoint: int
    """Its number among the names of the same ring; 0: one that is not known."""
    head_seconds: float | None
    """Of the upstream's own time until the final head; None: there was none."""
    whole_seconds: float
    """Of the upstream's own time in all; 0 without an attempt."""
    status: int
    """0 where there was no head."""
    verdict: Verdict | None
    """What its breaker said of it; None: it was not admitted, and `reason` says why."""
    state: State
    """Of the breaker, when it was asked."""
    reason: Reason | None
    """Why it ended as it did; None: with a whole answer."""


def unpack(fields: tuple[Any, ...]) -> OutcomeRecord:
    """A record of what `FORM` has read."""
    at, head, whole, endpoint, status, attempt, verdict, state, reason = fields
    return OutcomeRecord(
        at,
        attempt & MOST_ATTEMPT,
        bool(attempt & IS_HEDGE),
        endpoint,
        None if head < 0.0 else head,
        whole,
        status,
        None if verdict == NONE else VERDICTS[verdict],
        STATES[state],
        None if reason == NONE else REASONS[reason],
    )
