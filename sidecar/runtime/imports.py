"""What only some configurations need is imported when one asks for it. At the start that is where it is built; a
reload has it imported before, in a thread, since it would hold the loop for some 20 ms."""

from __future__ import annotations

import importlib

from sidecar.core.snapshot import Snapshot, Source


def import_for(snapshot: Snapshot) -> None:
    """All that this one needs. Does nothing when it is there."""
    if snapshot.share.redis is not None:
        importlib.import_module("sidecar.runtime.fleet.side")
    sources = {entry.source for upstream in snapshot.upstreams.values() for entry in upstream.endpoints}
    if Source.FILE in sources:
        importlib.import_module("sidecar.runtime.endpoint_files")
    if Source.KUBERNETES in sources:
        importlib.import_module("sidecar.kubernetes.endpoint_slices")
