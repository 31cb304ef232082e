"""How the connections of an upstream are made, as far as they may meet this very pod."""

from __future__ import annotations

import socket
from collections.abc import Callable

from sidecar.core.snapshot import Endpoint

InOwnPod = Callable[[Endpoint, bool], socket.socket | None]
"""(endpoint, whether by TLS) → a connection to the inbound listener that stands for it; None where none does.

Raises: OSError, there is no room for another one."""


class Departure:
    """Of one upstream. Whoever makes the upstream writes it, but for `in_process`."""

    __slots__ = ("in_process", "is_to_pod", "own_pod", "sources")

    def __init__(self) -> None:
        self.sources: set[tuple[str, int]] = set()
        """What connections leave from that carry bytes and no requests; shared with other upstreams."""
        self.is_to_pod = False
        """It is the pod itself: connections leave from an address that says so."""
        self.own_pod: InOwnPod | None = None
        """None: it is the pod's own app, behind its inbound listener."""
        self.in_process = 0
        """Connections so far that `own_pod` has given."""
