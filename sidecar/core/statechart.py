"""The breaker's state machine as one table: every allowed change of state with its reason, and its picture.

`breaker/machine.py` refuses to make a change that is not here, and the diagram in this folder's README is
`mermaid()`, so the code, the table and the picture cannot drift apart."""

from __future__ import annotations

from typing import Final

from sidecar.core.transition import State, TransitionReason

Edge = tuple[State, State, TransitionReason]

BY_HAND: Final = (State.FORCED_OPEN, State.FORCED_CLOSED, State.DISABLED)
"""States that traffic neither enters nor leaves."""

SHUT: Final = (State.OPEN, State.HALF_OPEN)
"""An outage: traffic has opened the breaker, and has not closed it yet."""

BY_TRAFFIC: Final[tuple[Edge, ...]] = (
    (State.CLOSED, State.OPEN, TransitionReason.CONSECUTIVE_FAILURES),
    (State.CLOSED, State.OPEN, TransitionReason.FAILURE_RATE),
    (State.CLOSED, State.OPEN, TransitionReason.SLOW_CALL_RATE),
    (State.CLOSED, State.OPEN, TransitionReason.PROBE_FAILED),
    (State.OPEN, State.HALF_OPEN, TransitionReason.WAIT_ELAPSED),
    (State.HALF_OPEN, State.CLOSED, TransitionReason.PROBE_SUCCEEDED),
    (State.HALF_OPEN, State.OPEN, TransitionReason.PROBE_FAILED),
    (State.HALF_OPEN, State.OPEN, TransitionReason.PROBE_TIMEOUT),
)
"""What requests and their outcomes can do. A probe that closed the breaker may still break: its answer had
begun well."""

BY_OPERATOR: Final[tuple[Edge, ...]] = tuple(
    (source, target, reason)
    for source in State
    for target in (State.FORCED_OPEN, State.FORCED_CLOSED, State.DISABLED, State.CLOSED)
    for reason in (TransitionReason.FORCED, TransitionReason.RELOAD)
    if source is not target
    and (target is not State.CLOSED or source in BY_HAND)
    and (reason is TransitionReason.FORCED or State.FORCED_CLOSED not in (source, target))
)
"""What an override (`forced`, its end included) and a new configuration's `mode` (`reload`) can do. A configuration
cannot say FORCED_CLOSED, and changes nothing while an operator does."""

BY_PEERS: Final[tuple[Edge, ...]] = (
    (State.CLOSED, State.OPEN, TransitionReason.PEERS),
    (State.OPEN, State.HALF_OPEN, TransitionReason.PEERS),
    (State.OPEN, State.CLOSED, TransitionReason.PEERS),
    (State.HALF_OPEN, State.CLOSED, TransitionReason.PEERS),
    (State.HALF_OPEN, State.OPEN, TransitionReason.PEERS),
)
"""What the decisions of other processes can do. Who has missed some of them goes from OPEN to CLOSED at once."""

EDGES: Final[frozenset[Edge]] = frozenset(BY_TRAFFIC + BY_OPERATOR + BY_PEERS)


def mermaid() -> str:
    """The table as a mermaid `stateDiagram-v2`, one arrow for each pair of states; ends with a newline."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for source, target, reason in BY_TRAFFIC + BY_PEERS + BY_OPERATOR:
        arrows.setdefault((source, target), []).append(reason.value)
    lines = ["stateDiagram-v2", "    [*] --> CLOSED"]
    lines += [f"    {s.name} --> {t.name}: {', '.join(reasons)}" for (s, t), reasons in arrows.items()]
    return "\n".join(lines) + "\n"
