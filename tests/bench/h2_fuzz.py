"""Millions of frames to the HTTP/2 codec and to nghttp2 (`ngh2`) alike: do they ever say something different?

    python -m tests.bench.h2_fuzz [--frames 10000000] [--seed 0] [--workers 1]

Guided random: connections of up to 40 steps in both roles, mostly well-formed (`tests/http2/guided.py`). Ends at
the first difference that `tests/http2/oracle.py` does not list, or exception, with the seed that repeats it; prints
frames a second.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor

from sidecar.http2.codec import Role
from tests.http2.oracle import run

STEPS = 40
CONNECTIONS = 500
"""In one piece of work."""


def play(first_seed: int) -> tuple[int, str]:
    """`CONNECTIONS` connections from this seed on: how many frames they had, and a difference if there is one."""
    count = 0
    for seed in range(first_seed, first_seed + CONNECTIONS):
        role = Role.SERVER if seed % 2 else Role.CLIENT
        try:
            frames, difference = run(seed, role, STEPS)
        except Exception as error:
            raise RuntimeError(f"seed {seed} {role.name}: an exception escaped") from error
        count += frames
        if difference:
            return count, difference
    return count, ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first connection")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    arguments = parser.parse_args()
    begin, told, frames, seed = time.monotonic(), time.monotonic(), 0, arguments.seed
    with ProcessPoolExecutor(arguments.workers) as pool:
        while frames < arguments.frames:
            seeds = range(seed, seed + CONNECTIONS * arguments.workers, CONNECTIONS)
            seed = seeds[-1] + CONNECTIONS
            for count, difference in pool.map(play, seeds):
                frames += count
                if difference:
                    raise SystemExit(f"after {frames} frames: {difference}")
            if time.monotonic() - told > 10:
                told = time.monotonic()
                print(f"{frames:12,} frames, seed {seed}", flush=True)
    print(
        f"{frames:,} frames, {frames / (time.monotonic() - begin):,.0f} a second, no difference, no exception"
    )


if __name__ == "__main__":
    main()
