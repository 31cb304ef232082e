"""A body of 2 GiB each way through one sidecar process, with a slow reader and with a slow upstream.

    python -m tests.bench.streaming [--gib N] [--tls 1.2|1.3]

`--tls`: on both sides of the sidecar; without it on neither. What arrives is compared byte by byte. Prints by how
much the resident memory of the process grew; exits 1 if that is 16 MiB or more, with TLS 24.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.process.flow import MIB, growth_by_answer, growth_by_request
from tests.scenarios.test_tls_upstream import VERSIONS, serving, tls
from tests.support.authority import Authority
from tests.support.certificates import Certificates

MOST_GROWTH_KIB = {False: 16 * 1024, True: 24 * 1024}
"""By whether there is TLS."""


def by_tls(folder: Path, version: str) -> dict[str, Any]:
    """What `growth_by_answer` and `growth_by_request` are to be given for TLS on both sides."""
    certificates, authority = Certificates(folder), Authority(folder)
    client = authority.client()
    client.minimum_version = client.maximum_version = VERSIONS[version]
    return {
        "tls": serving(certificates.pair("a", "a.test"), VERSIONS[version]),
        "upstream": tls(certificates),
        "client_tls": client,
        "listener": f"tls: {{certificate: {authority.pair('a.test').yaml()}}}",
    }


async def main() -> int:
    """Both ways, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--tls", choices=VERSIONS)
    options = parser.parse_args()
    total = int(options.gib * 1024) // 8 * 8 * MIB
    worst = 0
    for name, measure in (
        ("answer, slow reader", growth_by_answer),
        ("request, slow upstream", growth_by_request),
    ):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            began = time.monotonic()
            growth = await measure(folder, total, **(by_tls(folder, options.tls) if options.tls else {}))
            print(
                f"{options.gib:g} GiB {name}: memory grew by {growth / 1024:.1f} MiB "
                f"in {time.monotonic() - began:.1f} s",
                flush=True,
            )
            worst = max(worst, growth)
    return int(worst >= MOST_GROWTH_KIB[options.tls is not None])


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
