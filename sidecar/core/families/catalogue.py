"""The catalogue of metrics: the one place that knows them all; `telemetry/metrics.py` and `admin/prometheus.py` only
translate.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

from sidecar.core.families.breakers import BREAKERS
from sidecar.core.families.family import Family
from sidecar.core.families.process import PROCESS
from sidecar.core.families.requests import REQUESTS
from sidecar.core.families.sharing import SHARING
from sidecar.core.families.upstreams import UPSTREAMS

FAMILIES: Final[tuple[Family, ...]] = (*REQUESTS, *BREAKERS, *UPSTREAMS, *SHARING, *PROCESS)

_OWN: Final = "sidecar."
"""So begins what nobody else names."""


@lru_cache(maxsize=1)
def named(prefix: str | None) -> tuple[Family, ...]:
    """The catalogue with `prefix` and a dot before the names of the semantic conventions, which an instrumented app
    reports under the same service; None: as it stands."""
    if prefix is None:
        return FAMILIES
    return tuple(
        one if one.name.startswith(_OWN) else replace(one, name=f"{prefix}.{one.name}") for one in FAMILIES
    )
