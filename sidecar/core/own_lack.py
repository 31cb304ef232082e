"""Which errors of the system say that this process, or its host, lacks something: they tell nothing of anybody else.

A connection that fails for want of a free file descriptor says nothing of the upstream, and a file that cannot be
opened for it has not changed.
"""

from __future__ import annotations

import errno

_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""Too many open files here or in the system, no memory, no memory of the kernel's for sockets."""


def is_own_lack(error: BaseException) -> bool:
    """True when what is missing is our own; also for an error that was raised from such a one, to say more."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in _ERRORS:
            return True
        found = found.__cause__
    return False
