"""Which sidecar this is. Asked for by everything that tells who it is; reads what the installer has written."""

from __future__ import annotations

import importlib.metadata
from functools import cache


@cache
def version() -> str:
    """Of what is installed. Looked for once: a look reads files, and leaves cycles behind."""
    return importlib.metadata.version("sidecar-proxy")
