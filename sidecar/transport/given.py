"""Listening sockets that another process has left to this one, which is to take its place (`runtime/upgrade.py`).

Whoever binds an address gets what was left of it, and knows nothing more of that. Filled before anything is bound,
by the process that was handed them; its forks inherit what nobody has taken by then, and let go of it.
"""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from sidecar.core.snapshot import Address
from sidecar.transport import kernel


class Given:
    """By address. Several of one address are of processes that shared it by SO_REUSEPORT."""

    def __init__(self) -> None:
        self._by: dict[Address, list[socket.socket]] = {}
        self._inodes: set[int] = set()
        """Of all that there were, whichever file they are by now."""
        self._borrowed: mmap.mmap | None = None
        """A byte that is shared with forks: 1 until they are this process's own."""

    def __repr__(self) -> str:
        return f"<Given {sum(map(len, self._by.values()))} sockets>"

    def __bool__(self) -> bool:
        return bool(self._by)

    def adopt(self, files: Iterable[int]) -> None:
        """These are ours from now on.

        Raises:
            OSError: one is no socket.
        """
        if self._borrowed is None:
            self._borrowed = mmap.mmap(-1, 1)
        self._borrowed[0] = 1
        for file in files:
            self._add(file)
            self._inodes.add(os.fstat(file).st_ino)

    def _add(self, file: int) -> None:
        one = socket.socket(fileno=file)
        one.setblocking(False)
        kernel.receive_freely(one)
        self._by.setdefault(address_of(one), []).append(one)

    def take_back(self, files: Iterable[int]) -> None:
        """These were ours before, and of one that has died: another process has them too by now."""
        for file in files:
            self._add(file)

    def lends(self, one: socket.socket) -> bool:
        """Whether whoever has left it serves as well, and goes on if this process ends before it is ready: nothing
        may be done that would end the socket for both, such as to shut it down."""
        is_borrowed = self._borrowed is not None and self._borrowed[0] == 1
        return is_borrowed and os.fstat(one.fileno()).st_ino in self._inodes

    def keep(self) -> None:
        """They are this process's own from now on, and its forks'."""
        if self._borrowed is not None:
            self._borrowed[0] = 0

    def take(self, address: Address) -> list[socket.socket]:
        """All that there are of this address, once; they listen. With port 0 there are none."""
        if address.path is not None:
            return self._by.pop(Address("", 0, address.path), [])
        return self._by.pop(Address(str(ip_address(address.host)), address.port), [])

    def close(self) -> None:
        """Nobody here will ask for the rest."""
        for sockets in self._by.values():
            for one in sockets:
                one.close()
        self._by.clear()


GIVEN: Final = Given()
"""Of this process."""


def address_of(one: socket.socket) -> Address:
    """Where a socket is bound to. One without a file has an empty path."""
    name = one.getsockname()
    if one.family == socket.AF_UNIX:
        return Address("", 0, name if isinstance(name, str) else "")
    return Address(name[0], name[1])
