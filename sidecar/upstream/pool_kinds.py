"""The one place where the client side of HTTP/2 is imported: when the first upstream may speak it.

With all of `sidecar/http2` it takes 1 MiB, which a pod whose upstreams speak HTTP/1.1 never needs. Which of them may
speak it says the configuration, so that no request waits for it (`runtime/imports.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.core.snapshot import HttpVersion
from sidecar.upstream.pool import Pool

if TYPE_CHECKING:
    from sidecar.upstream.http2_pool import Http2Pool


def pool_kind(protocol: HttpVersion) -> type[Pool] | type[Http2Pool]:
    """By which a new endpoint's connections begin. With `auto` HTTP/2 is hoped for: who comes meanwhile waits for the
    one handshake that tells."""
    if protocol is HttpVersion.HTTP1:
        return Pool
    from sidecar.upstream.http2_pool import Http2Pool  # see above

    return Http2Pool
