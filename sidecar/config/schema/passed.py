"""The route of what no route of a listener names: `defaults`, without what only a route of its own can mean."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from sidecar.config.schema.policies import Policies
from sidecar.config.schema.section import stored
from sidecar.core import snapshot as core


def passed_route(listener: core.Listener, policies: Policies | None) -> core.Route:
    """Whatever the host is. Nothing serves in its place and nothing of what is asked for is rewritten: it is to
    behave as if the sidecar were not there."""
    plain = core.Route(
        core.PASS_THROUGH,
        listener.name,
        (core.Match(),),
        ((core.PASS_THROUGH, 1),),
        direction=listener.direction,
    )
    route = stored(policies, plain)
    timeouts = route.timeouts
    if policies is None or policies.timeouts is None or policies.timeouts.idle is None:
        # A pool of database connections lies idle for hours. Who is gone is found out by TCP's own keepalive.
        timeouts = replace(timeouts, idle_seconds=inf)
    return replace(
        route,
        timeouts=timeouts,
        rewrite=core.Rewrite(),
        cors=None,
        fallback=None,
        breaker=replace(route.breaker, counts_rate_limited=listener.direction is core.Direction.OUTBOUND),
    )
