"""2 GiB each way through one sidecar process, with a slow reader and with a slow upstream.

    python -m tests.bench.streaming [GIB]

Prints by how much the resident memory of the process grew; exits 1 if that is 16 MiB or more.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.process.flow import MIB, growth_by_answer, growth_by_request

MOST_GROWTH_KIB = 16 * 1024


async def main() -> int:
    """Both ways, one after the other."""
    gib = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    total = int(gib * 1024) // 8 * 8 * MIB
    worst = 0
    for name, measure in (
        ("answer, slow reader", growth_by_answer),
        ("request, slow upstream", growth_by_request),
    ):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            growth = await measure(Path(folder), total)
            print(
                f"{gib:g} GiB {name}: memory grew by {growth / 1024:.1f} MiB in {time.monotonic() - began:.1f} s"
            )
            worst = max(worst, growth)
    return int(worst >= MOST_GROWTH_KIB)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
