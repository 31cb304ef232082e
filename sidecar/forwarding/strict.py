"""Listeners that refuse what their upstreams may read otherwise (`ambiguous: refuse`): the step of an exchange.

What that is, `core/ambiguity.py` knows.
"""

from __future__ import annotations

from sidecar.core.ambiguity import Watched
from sidecar.core.errors import Reason
from sidecar.core.request import Request
from sidecar.forwarding.given_up import GivenUp


def refuse_ambiguous(request: Request, watched: Watched, query: bytes) -> None:
    """Leave out fields with `_` in their names but for those that a route asks for, so that they are nobody's `-`.

    Raises:
        GivenUp: a field or parameter that a route asks for can be read in two ways.
    """
    problem = watched.problem(request.fields, request.lookup.get(b"connection"), query)
    if problem:
        raise GivenUp(Reason.BAD_REQUEST, problem)
    if request.traits.has_underscores:
        kept = watched.field_names
        request.fields = [field for field in request.fields if 95 not in field[0] or field[0] in kept]
        request.lookup = {key: value for key, value in request.lookup.items() if 95 not in key or key in kept}
