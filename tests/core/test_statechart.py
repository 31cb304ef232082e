"""The table of allowed transitions, and the picture that is drawn from it."""

from __future__ import annotations

import re

from sidecar.core.statechart import BY_OPERATOR, BY_PEERS, BY_TRAFFIC, EDGES, mermaid
from sidecar.core.transition import State, TransitionReason

BY_HAND = {TransitionReason.FORCED, TransitionReason.RELOAD}


def test_no_edge_stands_twice_and_none_stays_where_it_is() -> None:
    assert len(EDGES) == len(BY_TRAFFIC) + len(BY_OPERATOR) + len(BY_PEERS)
    assert all(source is not target for source, target, _ in EDGES)


def test_every_state_has_a_way_to_closed() -> None:
    reached = {State.CLOSED}
    for _ in State:
        reached |= {source for source, target, _ in EDGES if target in reached}
    assert reached == set(State)


def test_traffic_never_touches_what_an_operator_set() -> None:
    by_hand = {State.FORCED_OPEN, State.DISABLED}
    assert not [edge for edge in BY_TRAFFIC if by_hand & {edge[0], edge[1]} or edge[2] in BY_HAND]
    assert all(reason in BY_HAND for _, _, reason in BY_OPERATOR)


def test_picture_has_exactly_the_edges_of_the_table() -> None:
    first, *lines = mermaid().splitlines()
    assert first == "stateDiagram-v2"
    drawn = set()
    for line in lines:
        arrow = re.fullmatch(r"    (\w+) --> (\w+): ([a-z_, ]+)", line)
        if arrow is None:
            assert line == "    [*] --> CLOSED"
            continue
        for reason in arrow[3].split(", "):
            drawn.add((State[arrow[1]], State[arrow[2]], TransitionReason(reason)))
    assert drawn == EDGES
