"""The loading process as a running sidecar starts it: `python -m sidecar.runtime.loading NICENESS`."""

import gc
import signal
import sys

from sidecar.runtime import core_dumps

if __name__ == "__main__":
    # Who starts it may hold signals back (`cli/early_signals.py`).
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    core_dumps.forbid()
    gc.disable()  # imports leave next to no cycles: 3 % of them went into the search
    from sidecar.config.process.program import main

    main(int(sys.argv[1]))
