"""`python -m tests.process.late_workers FILE`: a sidecar whose workers listen when there is a file `go` beside FILE.

As where names are looked up for long.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sidecar.__main__ import main
from sidecar.runtime.datapath import DataPath

GO = Path(sys.argv[-1]).with_name("go")


async def _first_addresses(_: DataPath) -> None:
    while not GO.exists():  # noqa: ASYNC110 - it is another process that makes it
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    DataPath.first_addresses = _first_addresses  # type: ignore[method-assign]
    sys.argv.insert(1, "run")
    sys.exit(main())
