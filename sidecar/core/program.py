"""How another process of this program is started. Imported before all others (`runtime/first_loading.py`)."""

from __future__ import annotations

import os
import sys


def command(module: str, *words: str) -> list[str]:
    """Runs one of our modules with these arguments.

    It takes no modules from the working directory, in which anything may be called `yaml.py`, unless this process
    does so, too: by `python -m sidecar` in a checkout.
    """
    try:
        takes_from_here = os.getcwd() in sys.path
    except OSError:  # it was removed
        takes_from_here = False
    return [sys.executable, *(() if takes_from_here else ("-P",)), "-m", module, *words]
