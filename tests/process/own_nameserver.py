"""`python -m tests.process.own_nameserver RESOLV_CONF FILE`: a sidecar that asks other nameservers.

In a mount namespace of its own, which takes root; the process is the sidecar in the end, with the same pid.
"""

from __future__ import annotations

import os
import sys

MOUNT = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


def main() -> None:
    resolv_conf, file = sys.argv[1:]
    words = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        MOUNT,
        resolv_conf,
        sys.executable,
        "-m",
        "sidecar",
        "run",
        file,
    ]
    os.execvp("unshare", words)


if __name__ == "__main__":
    main()
