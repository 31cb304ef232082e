"""What upstreams are told of a client (`X-Forwarded-For` and the like), put to each of its requests.

Called by both protocols' connections, with what was written for the client's last request: most name the same host.
"""

from __future__ import annotations

from sidecar.core import forwarded
from sidecar.core.request import Request
from sidecar.core.snapshot import Forwarded

Known = tuple[bytes, bytes]
"""A host, and the lines for a request to it that brought none of these fields itself."""


def tell_of_client(
    request: Request, mode: Forwarded, peer: tuple[str, int] | None, known: Known | None
) -> Known | None:
    """Add `X-Forwarded-…` and `Forwarded`, as the listener says (SPEC 4). Returns what to call with next time."""
    lookup, host = request.lookup, request.host
    if known is not None and known[0] == host and forwarded.NAMES.isdisjoint(lookup):
        request.added = known[1]
        return known
    drop, lines = forwarded.forwarded_lines(mode, lookup, peer, False, host)
    request.added = lines
    if not drop:
        return host, lines
    request.fields = [field for field in request.fields if field[0] not in drop]
    return known
