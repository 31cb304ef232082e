"""Inputs that nobody thought of: python -m tests.bench.fuzz [--count N] [--seconds S] [TARGET ...].

Every reader of bytes, and whole connections of clients and of upstreams without sockets, are fed with changed forms
of known messages. Each input is read whole and in pieces, by a reader that has learned and by one that has not; no
exception may escape, and nothing may be left behind.

With atheris installed (`pip install 'atheris>=3,<4'`; it has wheels for Linux) inputs are guided by what they reach,
one process for each target. Without it, or with `--engine mutations`, they are not; that also works on a compiled
build. The targets share the inputs by what is at stake and what they cost. Inputs to begin with are in `corpus/`;
`--keep` writes what reached new places there.

Prints a line for each target: inputs, inputs a second, findings. A finding is told once for each kind, its input
written to `--found`; `--replay FILE TARGET` feeds one again. Exit code 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from math import inf
from pathlib import Path

from tests.bench.fuzz import engines, memories
from tests.bench.fuzz.engines import Run
from tests.bench.fuzz.targets import Target, all_targets

DEFAULT_SECONDS = 60.0


def main() -> int:
    options = _options()
    targets = all_targets()
    unknown = [name for name in options.targets if name not in targets]
    if unknown:
        print(f"no target {unknown[0]!r}; there are {', '.join(targets)}", file=sys.stderr)
        return 2
    chosen = [targets[name] for name in options.targets or targets]
    if options.replay is not None:
        with memories.small():
            for target in chosen:
                target.feed(options.replay.read_bytes())
        return 0
    print(f"engine: {options.engine}; findings go to {options.found}")
    print(f"{'target':<16} {'inputs':>12} {'seconds':>9} {'a second':>9} {'found':>6}  reached", flush=True)
    runs = [_run(target, options, sum(one.share for one in chosen)) for target in chosen]
    total = Run(
        sum(run.inputs for run in runs), sum(run.seconds for run in runs), sum(run.found for run in runs)
    )
    _tell("all", total)
    return int(total.found > 0)


def _run(target: Target, options: argparse.Namespace, shares: float) -> Run:
    part = target.share / shares
    count = sys.maxsize if options.count is None else max(int(options.count * part), 1)
    seconds = inf if options.seconds is None else options.seconds * part
    if options.engine == "guided":
        run = engines.guide(
            target,
            min(count, 2**31 - 1),
            min(seconds, 1e6),
            options.seed,
            options.found,
            keeps=options.keep,
        )
    else:
        run = engines.mutate(target, count, seconds, options.seed, options.found)
    _tell(target.name, run)
    return run


def _tell(name: str, run: Run) -> None:
    rate = run.inputs / run.seconds if run.seconds else 0.0
    print(
        f"{name:<16} {run.inputs:>12,} {run.seconds:>9.1f} {rate:>9,.0f} {run.found:>6}  {run.reached}",
        flush=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all of them, if none is named")
    parser.add_argument("--count", type=int, help="inputs in all; without a limit if only --seconds is given")
    parser.add_argument("--seconds", type=float, help=f"in all; {DEFAULT_SECONDS:g} if no limit is given")
    parser.add_argument("--engine", choices=("guided", "mutations"), help="guided where atheris is installed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="write what reached new places into the corpus")
    parser.add_argument(
        "--found", type=Path, default=Path(tempfile.gettempdir(), "sidecar-fuzz"), metavar="DIR"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="feed this input alone")
    options = parser.parse_args()
    if options.count is None and options.seconds is None:
        options.seconds = DEFAULT_SECONDS
    if options.engine is None:
        options.engine = "guided" if engines.has_guide() else "mutations"
    if options.engine == "guided" and not engines.has_guide():
        parser.error("--engine guided needs atheris: pip install 'atheris>=3,<4'")
    if options.keep and options.engine != "guided":
        parser.error("--keep needs the guided engine: mutations do not know what an input reaches")
    return options


if __name__ == "__main__":
    sys.exit(main())
