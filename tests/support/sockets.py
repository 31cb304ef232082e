"""What the kernel knows of a loopback connection: how much of what was sent is unread (proc(5), /proc/net/tcp)."""

from __future__ import annotations

import socket
from pathlib import Path

_TABLE = Path("/proc/net/tcp")


def unread_bytes(sender: socket.socket) -> int:
    """What this end has sent and the program at the other end has not read.

    It waits in the sender's queue or in the receiver's. Both ends must be IPv4 and of this machine.
    """
    here, there = sender.getsockname()[1], sender.getpeername()[1]
    waiting = 0
    for line in _TABLE.read_text().splitlines()[1:]:
        local, remote, _, queues = line.split()[1:5]
        ports = int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)
        sent, received = (int(size, 16) for size in queues.split(":"))
        if ports == (here, there):
            waiting += sent
        elif ports == (there, here):
            waiting += received
    return waiting
