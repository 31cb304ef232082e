"""Where a client's connection is, how long it may stay there, and what ends it then.

The connection has one phase at a time and one writer of it (`PhaseClock._enter`); entering a phase starts its
clock, so that no phase inherits the time of another. Phases in which it is the upstream's turn have no limit here:
there the exchange's own deadline holds.
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from math import inf
from typing import Final

from sidecar.core.snapshot import ListenerTimeouts


class Phase(IntEnum):
    IDLE = 0
    """Between two requests."""
    HEAD = 1
    """A request's head has begun and is not whole."""
    BODY = 2
    """It is the client's turn to send more of a body; each read starts the clock anew."""
    ANSWER = 3
    """It is the upstream's turn."""
    UNSENT = 4
    """The client is to take what was written for it; each look that finds less waiting starts the clock anew."""
    SKIP = 5
    """Answered; the rest of the request's body is read past, since the connection goes on behind it."""
    LINGER = 6
    """Answered and ended; what still comes is read past, so that closing does not reset the answer on its way."""
    CLOSING = 7
    """Closed as soon as what was written has gone out."""
    TUNNEL = 8
    """Somebody else's."""
    CLOSED = 9
    HANDSHAKE = 10
    """Of TLS, from the connection on: no request has begun."""
    DETECT = 11
    """What the client speaks is not known yet."""


ENDED: Final = frozenset({Phase.LINGER, Phase.CLOSING, Phase.TUNNEL, Phase.CLOSED})
"""No request is made any more of what still comes."""


class Then(Enum):
    """What a phase that lasts too long leads to."""

    NOTHING = auto()
    CLOSE = auto()
    """Nothing is owed to the client."""
    REFUSE_HEAD = auto()
    """408."""
    REFUSE_BODY = auto()
    """408, or a cut where the answer has begun."""
    CUT_IF_STUCK = auto()
    """Unless the client has taken something since the last look."""
    CUT = auto()


SKIP_SECONDS: Final = 30.0
"""In all, for the rest of a body that nobody wants (RFC 9112 9.6 names no figure)."""
LINGER_SECONDS: Final = 30.0
"""In all, behind the last answer, for clients that write first and read later."""
LAST_LINGER_SECONDS: Final = 5.0
"""The same in a drain, which must end."""
LAST_CALL_SECONDS: Final = 0.5
"""How long a connection may still bring a request once nobody else is accepted."""

THEN: Final = {
    Phase.IDLE: Then.CLOSE,
    Phase.HEAD: Then.REFUSE_HEAD,
    Phase.BODY: Then.REFUSE_BODY,
    Phase.ANSWER: Then.NOTHING,
    Phase.UNSENT: Then.CUT_IF_STUCK,
    Phase.SKIP: Then.CUT,
    Phase.LINGER: Then.CUT_IF_STUCK,
    Phase.CLOSING: Then.CUT_IF_STUCK,
    Phase.TUNNEL: Then.NOTHING,
    Phase.CLOSED: Then.NOTHING,
    Phase.HANDSHAKE: Then.CLOSE,
    Phase.DETECT: Then.CLOSE,
}


def limits(timeouts: ListenerTimeouts, *, is_ending: bool = False) -> tuple[float, ...]:
    """How long each phase may last, in seconds, by its value; infinite where nothing ends it."""
    idle = timeouts.idle_seconds
    seconds = {
        Phase.IDLE: min(idle, LAST_CALL_SECONDS) if is_ending else idle,
        Phase.HEAD: timeouts.head_seconds,
        Phase.BODY: timeouts.body_seconds,
        Phase.UNSENT: timeouts.body_seconds,
        Phase.SKIP: LAST_LINGER_SECONDS if is_ending else SKIP_SECONDS,
        Phase.LINGER: LAST_LINGER_SECONDS if is_ending else LINGER_SECONDS,
        Phase.CLOSING: timeouts.body_seconds,
        Phase.HANDSHAKE: timeouts.handshake_seconds,
        Phase.DETECT: timeouts.detect_seconds,
    }
    return tuple(seconds.get(phase, inf) for phase in Phase)
