"""Whether what a command prints is coloured, as other programs decide it (no-color.org, bixense.com/clicolors).

The first that applies: `NO_COLOR` (not empty) none; `CLICOLOR_FORCE` or `FORCE_COLOR` (neither empty nor 0) always;
`CLICOLOR=0` none; else where stdout is a terminal that is not dumb. They decide of colours alone: a terminal stays
one, with its width, its bold text and its live view.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from rich.console import Console

_FORCE = ("CLICOLOR_FORCE", "FORCE_COLOR")


def is_coloured(environ: Mapping[str, str], *, is_terminal: bool) -> bool:
    """What the environment says of a stdout that is, or is not, a terminal."""
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "0") not in ("", "0") for name in _FORCE):
        return True
    return is_terminal and environ.get("CLICOLOR") != "0" and environ.get("TERM") != "dumb"


def console(width: int | None = None) -> Console:
    """For stdout as it is now. `width`: None for the terminal's, or `$COLUMNS`."""
    is_terminal = sys.stdout.isatty()
    shows = is_coloured(os.environ, is_terminal=is_terminal)
    return Console(
        width=width,
        force_terminal=is_terminal,
        color_system="auto" if is_terminal or not shows else "standard",
        no_color=not shows,
    )
