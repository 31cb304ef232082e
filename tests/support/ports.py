"""Ports of loopback for processes that bind them later."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_OWN = random.Random()
"""Not the global one: what seeds that would have several runs on one machine draw the same ports."""
BLOCK = 512
"""So many are claimed at once: enough that each has been bound, or is done with, when its turn comes again."""
CLAIM = "sidecar-tests-ports"
_own: deque[int] = deque()
"""This process's, the one that was given longest ago first."""
_claims: list[socket.socket] = []
LISTEN_SECONDS = 100.0
"""Against hanging."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody holds now and that nobody is given by chance before they are bound: the kernel takes the
    ports of outgoing connections from its own range, and another process that runs tests has other ones.

    Raises:
        OSError: all are taken.
    """
    found: list[int] = []
    looked_at = 0
    while len(found) < count:
        if looked_at == len(_own) and not _claim():
            raise OSError(f"{count} free ports wanted, {len(found)} found")
        port = _own.popleft()
        _own.append(port)
        looked_at += 1
        if _is_free(port):
            found.append(port)
    return found


def _claim() -> bool:
    """Make a block of ports this process's own, by a name that the kernel gives to one process at a time and takes
    back when that has ended."""
    candidates = _candidates()
    blocks = [candidates[at : at + BLOCK] for at in range(0, len(candidates), BLOCK)]
    for block in _OWN.sample(blocks, len(blocks)):
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0{CLAIM}-{block[0]}")
        except OSError:
            name.close()
            continue
        _claims.append(name)
        _own.extendleft(_OWN.sample(block, len(block)))
        return True
    return False


def _candidates() -> Sequence[int]:
    """Below the kernel's own range, where that leaves some."""
    try:
        lowest = int(_EPHEMERAL.read_text().split()[0])
    except FileNotFoundError:  # not Linux
        lowest = 49_152  # RFC 6335 section 6
    return range(16_000, lowest) if lowest >= 20_000 else range(10_000, 65_536)


def _is_free(port: int) -> bool:
    """Not even shared by SO_REUSEPORT, which the kernel does silently."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def accepts(port: int) -> bool:
    """Whether somebody takes connections there now."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def until_it_listens(process: subprocess.Popen[Any], port: int) -> None:
    """Wait until a program takes connections at a port of loopback, or has ended."""
    deadline = time.monotonic() + LISTEN_SECONDS
    while True:
        assert process.poll() is None, f"it has ended with {process.returncode}"
        assert time.monotonic() < deadline, "it does not listen"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
