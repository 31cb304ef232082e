"""What only some configurations need is imported when one asks for it. At the start that is where it is built, or
before it; a reload has it imported before, in a thread, since it would hold the loop for some 20 ms."""

from __future__ import annotations

import importlib

from sidecar.core.snapshot import HttpVersion, Listener, Snapshot, Source


def import_for(snapshot: Snapshot) -> None:
    """All that this one needs. Does nothing when it is there."""
    if snapshot.share.redis is not None:
        importlib.import_module("sidecar.runtime.fleet.side")
    sources = {entry.source for upstream in snapshot.upstreams.values() for entry in upstream.endpoints}
    if Source.FILE in sources:
        importlib.import_module("sidecar.runtime.endpoint_files")
    if Source.KUBERNETES in sources:
        importlib.import_module("sidecar.kubernetes.endpoint_slices")


def import_protocols(snapshot: Snapshot) -> None:
    """What the data path will certainly need of this one: HTTP/2 or nothing. Does nothing when it is there."""
    if any(_takes_http2(listener) for listener in snapshot.listeners.values()):
        importlib.import_module("sidecar.downstream.http2")
    # `auto` as well: such an upstream begins with the pool of HTTP/2.
    if any(upstream.protocol is not HttpVersion.HTTP1 for upstream in snapshot.upstreams.values()):
        importlib.import_module("sidecar.upstream.http2_pool")


def _takes_http2(listener: Listener) -> bool:
    """Whether clients will speak it here. With TLS who can does, since it is offered first. In clear text with `auto`
    hardly anybody does: then it is imported when the first one has begun (`downstream/http2_connection.py`)."""
    protocol = listener.protocol
    return protocol is HttpVersion.HTTP2 or (protocol is HttpVersion.AUTO and listener.tls is not None)
