"""The one place where the server side of HTTP/2 is imported: when the first client speaks it.

With all of `sidecar/http2` it takes 1 MiB, which a pod whose clients speak HTTP/1.1 never needs. Where somebody will
speak it by the configuration, it is there before anybody connects (`runtime/imports.py`). Else the first client waits
for it, and the loop with it, once in the life of a process: 8 ms. A thread would hold the loop for as long, in pieces
of 5 ms, and the connection would need a state more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.downstream.secured import Secured
from sidecar.transport.link import Link

if TYPE_CHECKING:
    from sidecar.downstream.http2 import Http2ClientConnection
    from sidecar.downstream.terms import ListenerTerms


def http2_connection(
    listener: ListenerTerms, link: Link, secured: Secured | None = None
) -> Http2ClientConnection:
    """One that has yet to take its place at the listener.

    Raises:
        ImportError, OSError: the code could not be read; the next client tries again.
    """
    from sidecar.downstream.http2 import Http2ClientConnection  # see above

    return Http2ClientConnection(listener, link, secured)
