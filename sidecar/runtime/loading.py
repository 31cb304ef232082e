"""The loading process as a running sidecar starts it: `python -m sidecar.runtime.loading NICENESS`."""

import signal
import sys

from sidecar.config.process.program import main
from sidecar.runtime import core_dumps

if __name__ == "__main__":
    # Who starts it may hold signals back (`cli/early_signals.py`).
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    core_dumps.forbid()
    main(int(sys.argv[1]))
