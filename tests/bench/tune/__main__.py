"""What `sidecar tune` finds, and whether it holds: tuned on two seeds, judged live on two others.

    python -m tests.bench.tune [--measured] [--report] [KIND…]

For each kind of outage the real proxy runs on a virtual clock under the default policy (`--measured`: with `mode:
metrics_only`, so that nothing was refused), `tune` reads what it has kept, and its candidate, made active, runs
beside the default on outages that it has not seen. Each run has three outages of 15 to 45 s and 40 requests a second;
what is counted is from the begin of each to a minute after its end. How many refused requests would have been good is
what the upstream says of itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import reduce
from operator import add

from sidecar.core.snapshot import BreakerPolicy
from sidecar.tuning.report import as_data, as_text
from sidecar.tuning.tune import Tuned, tune
from tests.bench.tune.live import Ran, run
from tests.bench.tune.upstreams import KINDS, Upstream
from tests.bench.virtual_load import table

SEEN, UNSEEN = (1, 2), (3, 4)
"""Seeds."""
HEAD = (
    "outage",
    "tune says",
    "policy",
    "good requests refused",
    "failures let through",
    "load on the upstream",
)


def rows_of(kind: type[Upstream], seen: str) -> list[tuple[str, ...]]:
    """Of the default and of what `tune` recommends."""
    found = as_data(_tuned(kind, seen), 0)
    rows = [_row(kind.name, "", "the default", _all(kind, UNSEEN, "{}"))]
    if found["candidate"] is None:
        return [(kind.name, f"keep: {found['reason']}", *rows[0][2:])]
    told = ", ".join(f"{name}: {value}" for name, value in found["candidate"].items())
    rows.append(_row("", f"`{told}`", "tuned", _all(kind, UNSEEN, f"{{{told}}}")))
    return rows


def _tuned(kind: type[Upstream], seen: str) -> Tuned:
    return tune("app", _all(kind, SEEN, seen).calls, BreakerPolicy(), {})


def _all(kind: type[Upstream], seeds: Iterable[int], breaker: str) -> Ran:
    return reduce(add, (run(kind, seed, breaker) for seed in seeds))


def _row(name: str, told: str, policy: str, ran: Ran) -> tuple[str, ...]:
    load = ran.taken / ran.ill_seconds
    return name, told, policy, f"{ran.good_refused:.0f} of {ran.requests}", str(ran.failed), f"{load:.1f}/s"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tune", description=__doc__)
    parser.add_argument(
        "--measured", action="store_true", help="tune from a time in which nothing was refused"
    )
    parser.add_argument("--report", action="store_true", help="what `sidecar tune` prints, and no judgement")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="default: all")
    options = parser.parse_args()
    seen = "{mode: metrics_only}" if options.measured else "{}"
    kinds = [kind for kind in KINDS if not options.kinds or kind.name in options.kinds]
    if options.report:
        for kind in kinds:
            print(as_text(_tuned(kind, seen), 0))
        return
    rows: list[tuple[str, ...]] = [HEAD]
    for kind in kinds:
        rows += rows_of(kind, seen)
    print(table(rows))


if __name__ == "__main__":
    main()
