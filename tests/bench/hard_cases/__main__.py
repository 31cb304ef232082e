"""Run all situations against all breakers and print the table.

    python -m tests.bench.hard_cases [--only TEXT] [--breaker NAME] [--markdown]

Exit code 1 if our own breaker is wrong in any of them.
"""

from __future__ import annotations

import argparse
import sys

from tests.bench.hard_cases.run import BREAKERS, run
from tests.bench.hard_cases.situations import SITUATIONS
from tests.bench.hard_cases.table import Row, markdown, plain


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hard_cases", description=__doc__)
    parser.add_argument("--only", default="", help="situations whose name contains this")
    parser.add_argument("--breaker", choices=sorted(BREAKERS), help="this breaker alone")
    parser.add_argument("--markdown", action="store_true", help="the table as it stands in the README")
    options = parser.parse_args()
    rows = []
    for situation in SITUATIONS:
        if options.only not in situation.name:
            continue
        for name in BREAKERS:
            if options.breaker in (None, name):
                row = Row(situation, name, run(situation, name))
                rows.append(row)
                if not options.markdown:
                    print(plain(row), flush=True)
    if options.markdown:
        print(markdown(rows))
    return int(any(not row.is_right for row in rows if row.breaker == "sidecar"))


if __name__ == "__main__":
    sys.exit(main())
