"""What upstreams are told of a client (`X-Forwarded-For` and the like), put to each of its requests.

Called by both protocols' connections, with what was written for the client's last request: most name the same host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sidecar.core import forwarded
from sidecar.core.client_tls import XFCC_NAMES
from sidecar.core.headers import TELLS_OF_CLIENT
from sidecar.core.plain import BLOCK
from sidecar.core.request import Request
from sidecar.core.snapshot import Forwarded

if TYPE_CHECKING:
    from sidecar.downstream.terms import ListenerTerms

Known = tuple[bytes, bytes, Forwarded, Mapping[bytes, bytes] | None]
"""A host, the lines for a request to it that brought none of these fields itself, and the rule that they follow: a
reload may bring another. Last the values of the `Block` of such a request, None where its head was no block or has
more than `MOST_KEPT` fields: where the same block comes once more, nobody looks at its fields."""
MOST_KEPT: Final = 8
"""Each connection may be the last one that keeps its block's values in memory."""


def tell_of_client(
    request: Request, listener: ListenerTerms, peer: tuple[str, int] | None, known: Known | None
) -> Known | None:
    """Add `X-Forwarded-…`, `Forwarded` and `X-Forwarded-Client-Cert`, as the listener says (SPEC 4 and 13).

    Returns what to call with next time. `request.tls` has been set.
    """
    lookup, host, tls = request.lookup, request.host, request.tls
    mode = listener.forwarded
    if known is not None and known[0] == host and known[2] is mode and TELLS_OF_CLIENT.isdisjoint(lookup):
        request.added = known[1]
        return known
    drop, lines = forwarded.forwarded_lines(mode, lookup, peer, tls is not None, host)
    if tls is not None and tls.xfcc and mode is not Forwarded.OFF:
        lines += tls.xfcc
    request.added = lines
    if listener.owns_client_cert and not XFCC_NAMES.isdisjoint(lookup):
        _drop_client_cert(request)
        drop |= XFCC_NAMES
    if not drop:
        is_kept = type(request.fields) is BLOCK and len(lookup) <= MOST_KEPT
        return host, lines, mode, lookup if is_kept and TELLS_OF_CLIENT.isdisjoint(lookup) else None
    request.fields = [field for field in request.fields if field[0] not in drop]
    return known


def _drop_client_cert(request: Request) -> None:
    """No route may be chosen by it either."""
    request.lookup = {key: value for key, value in request.lookup.items() if key not in XFCC_NAMES}
