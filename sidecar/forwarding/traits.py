"""What only some requests have: an older version, chunks, the wish for another protocol, gRPC."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Traits:
    """Made for a request whose head is not plain; all others share `PLAIN`, which is never written to."""

    http_version: str = "1.1"
    is_chunked: bool = False
    wants_upgrade: bool = False
    is_grpc: bool = False


PLAIN = Traits()
