"""How many files this process may have open, and how many exchanges that is enough for.

Each connection is an open file to the kernel. A proxy without a free one can accept nothing and connect to nobody, so
the soft limit is raised to the hard one at the start (SPEC 9), and what the rest of the process needs is kept apart
from what traffic may take. Decides the numbers alone: who refuses what is beyond them is the data path.
"""

from __future__ import annotations

import resource
import sys
from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Snapshot
from sidecar.forwarding.visitors import MOST_VISITORS
from sidecar.serving.http import MAX_CONNECTIONS

OTHER_FILES: Final = 64
"""Kept for what is neither traffic nor admin nor probes: logs, listening sockets, the exporters' connections, the
look-ups of names (16 at once), the pipes of the loading process, the configuration's files while they are read."""
MIN_SERVER_CONNECTIONS: Final = 64
"""Of the admin and of the probe listener: 32 readers of events and 16 long answers leave room for a probe."""
SERVER_SHARE: Final = 8
"""Each of the two takes at most this part of all: 128 of the usual 1024."""
VISITOR_SHARE: Final = 64
"""Clients who are told that there is no file for them take at most this part of all: 16 of the usual 1024. As many
files again are kept open for them, in case there is none although there should be."""


@dataclass(frozen=True, slots=True)
class FileLimits:
    """The limit that this process runs under, and what it is divided into."""

    open_files: int
    """The soft limit (RLIMIT_NOFILE): one more is refused with EMFILE."""
    problem: str = ""
    """Why it could not be raised; empty when it is the hard limit."""

    @property
    def max_server_connections(self) -> int:
        """Connections of the admin listener, and as many of the probe listener."""
        return min(MAX_CONNECTIONS, max(MIN_SERVER_CONNECTIONS, self.open_files // SERVER_SHARE))

    @property
    def max_visitors(self) -> int:
        """Clients beyond those who are served, at a time."""
        return min(MOST_VISITORS, max(1, self.open_files // VISITOR_SHARE))

    @property
    def max_open_connections(self) -> int:
        """Connections with clients, over all listeners, and as many with upstreams, over all upstreams; at least 1.

        Equal parts, since an exchange takes one of each.
        """
        kept = OTHER_FILES + 2 * self.max_server_connections + 2 * self.max_visitors
        return max(1, (self.open_files - kept) // 2)


def warning_of_limit(limits: FileLimits, snapshot: Snapshot) -> str | None:
    """What to tell where the limit is less than the configuration asks for; None where it is enough.

    What it asks for is the most that one upstream may have: a listener's own limit is high, and meant to be.
    """
    wanted = max((upstream.limits.max_connections for upstream in snapshot.upstreams.values()), default=0)
    if limits.max_open_connections >= wanted:
        return None
    enough = wanted * 2 + OTHER_FILES + 2 * MAX_CONNECTIONS + 2 * MOST_VISITORS
    return (
        f"{limits.open_files} open files are enough for {limits.max_open_connections} exchanges at once, and an"
        f" upstream may have {wanted} connections (max_connections): raise the hard limit to {enough}"
        " (`ulimit -Hn`, LimitNOFILE= of systemd, --ulimit nofile= of Docker)"
        + (f"; {limits.problem}" if limits.problem else "")
    )


def present() -> FileLimits:
    """The limit as it is."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FileLimits(_number(soft))


def raised() -> FileLimits:
    """Raise the soft limit to the hard one, which needs no privilege, and return the limit that is in force then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _number(soft) >= _number(hard):
        return FileLimits(_number(soft))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # a hard limit beyond fs.nr_open is refused, and so may a sandbox
        return FileLimits(_number(soft), f"{soft} could not be raised to {hard}: {error}")
    return FileLimits(_number(hard))


def _number(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit
