"""The loading process as a running sidecar starts it: `python -m sidecar.runtime.loading NICENESS`."""

import sys

from sidecar.config.process.program import main
from sidecar.runtime import core_dumps

if __name__ == "__main__":
    core_dumps.forbid()
    main(int(sys.argv[1]))
