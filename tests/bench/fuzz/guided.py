"""One target under atheris, which changes inputs and keeps those that reach new places.

Run by `tests.bench.fuzz`, a process for each target, since libFuzzer ends the process it runs in. Arguments: the
target's name, the folder for findings, then libFuzzer's own.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    import atheris

    name, folder, *rest = sys.argv[1:]
    with atheris.instrument_imports(include=["sidecar"]):
        from tests.bench.fuzz import memories
        from tests.bench.fuzz.findings import Findings
        from tests.bench.fuzz.targets import all_targets

        findings = Findings(all_targets()[name], Path(folder))
    with memories.small():
        atheris.Setup([sys.argv[0], *rest], findings.guarded())
        atheris.Fuzz()


if __name__ == "__main__":
    main()
