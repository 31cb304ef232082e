"""`sidecar run FILE` with its own nameserver, and with a wall clock that can be moved.

Run: python -m tests.bench.kill_list.prepared FILE. Names are asked of $KILL_LIST_NAMESERVER. The wall clock is what
`time.time` and `time.time_ns` say in this process, plus the seconds in the file $KILL_LIST_CLOCK: to set the real one
would change it for the whole machine, since Linux has no namespace for it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def _move_clock(file: Path) -> None:
    real, real_ns = time.time, time.time_ns

    def offset() -> float:
        return float(file.read_text() or 0)

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1e9)


def main() -> int:
    _move_clock(Path(os.environ["KILL_LIST_CLOCK"]))
    from sidecar.__main__ import main as run
    from sidecar.upstream.lookup import CaresLookup

    defaults = CaresLookup.__init__.__kwdefaults__
    assert defaults is not None
    defaults["nameservers"] = (os.environ["KILL_LIST_NAMESERVER"],)
    return run(["run", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
