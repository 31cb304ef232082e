"""`python -m tests.process.late_successor FILE`: a sidecar whose successors wait while there is a file beside FILE.

`hold_start`: before they do anything; `hold_ready`: before they say that they serve. `has_said`: one has said so.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from sidecar.__main__ import main
from sidecar.runtime.upgrade import VARIABLE, Predecessor

FOLDER = Path(sys.argv[1]).parent


def hold(name: str) -> None:
    while (FOLDER / name).exists():
        time.sleep(0.01)


def late(ready: object = Predecessor.ready) -> None:
    def wait_and_say(self: Predecessor) -> None:
        hold("hold_ready")
        ready(self)  # type: ignore[operator]
        (FOLDER / "has_said").touch()

    Predecessor.ready = wait_and_say  # type: ignore[method-assign]


if __name__ == "__main__":
    if VARIABLE in os.environ:
        hold("hold_start")
        late()
    sys.exit(main(["run", sys.argv[1]]))
