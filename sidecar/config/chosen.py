"""Which file or directory a command reads.

Imports next to nothing: `sidecar run` asks it before it starts its loading process, and imports the rest after that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

DEFAULT_FILE = "sidecar.yaml"


def chosen(given: str | None, environ: Mapping[str, str]) -> str:
    """The path that a command was given, or `$SIDECAR_CONFIG`, or `sidecar.yaml`."""
    return given or environ.get("SIDECAR_CONFIG") or DEFAULT_FILE


def how_to_begin(given: str | None, environ: Mapping[str, str]) -> str:
    """For somebody who named no file where there is none: what was looked for, and what to do. Else empty."""
    if given or environ.get("SIDECAR_CONFIG") or os.path.exists(DEFAULT_FILE):
        return ""
    return (
        f"no configuration: no FILE was given, $SIDECAR_CONFIG is not set, and there is no {DEFAULT_FILE} in "
        f"{os.getcwd()}. Write one to begin with by `sidecar init`, or see it work first by `sidecar demo`"
    )
