"""Listening sockets that systemd has opened before this process began, and keeps when it ends (sd_listen_fds(3)).

So a port below 1024 needs no right of the process, and a restart refuses nobody: who connects meanwhile waits in the
kernel's queue until the next process takes them. A listener of the configuration takes the socket that has its name
(`FileDescriptorName=`), whatever its address, else the one at its address.

Owned by whoever began the process; what listeners get are copies, and nothing is done that would end
the socket for the next process.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping, Sequence
from typing import Final

from sidecar.core.snapshot import Address
from sidecar.transport import kernel
from sidecar.transport.bind import Bound, bind_own
from sidecar.transport.given import address_of

_LOG = logging.getLogger("sidecar.runtime")
FIRST: Final = 3
"""The descriptor where they begin: SD_LISTEN_FDS_START."""
MOST: Final = 256
"""More are a mistake."""
_KEPT: Final = "systemd has opened the sockets and keeps them: restart the unit instead, which refuses nobody"
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class Activated:
    """All of them, with their names. An empty one is falsy."""

    def __init__(self, sockets: Sequence[tuple[str, socket.socket]] = ()) -> None:
        self._sockets = tuple(sockets)
        self._used: set[int] = set()
        """Descriptors."""

    def __len__(self) -> int:
        return len(self._sockets)

    @property
    def hindrance(self) -> str:
        """Why there can be no upgrade in place; empty: nothing is against it."""
        return _KEPT if self._sockets else ""

    @classmethod
    def taken(cls, environ: MutableMapping[str, str]) -> Activated:
        """Those that this process was given. The variables are removed: they are not for its children.

        Raises:
            OSError: one of them is nothing that a listener can accept from; the text says what to do.
        """
        pid, count, names = (environ.pop(name, "") for name in _VARIABLES)
        if pid != str(os.getpid()):
            return cls()
        if not count.isascii() or not count.isdecimal() or int(count) > MOST:
            raise OSError(
                f"LISTEN_FDS: {count!r:.40} is no number up to {MOST}; systemd sets it, nobody else should"
            )
        words = names.split(":") if names else []
        named = [words[index] if index < len(words) else "" for index in range(int(count))]
        return cls([(name, _listening(FIRST + index, name)) for index, name in enumerate(named)])

    def find(self, address: Address, key: str) -> socket.socket | None:
        """The one for a listener; `key` is where the configuration has its address. None: it is to be bound."""
        name = key.removeprefix("listeners.").removesuffix(".address")
        by_name = [one for called, one in self._sockets if called == name and not address.is_v6_only]
        by_address = [one for _, one in self._sockets if _is_at(one, address)]
        # Two that systemd has for one unit have one name: their addresses say which is meant.
        found = by_name if len(by_name) == 1 else by_address
        if not found:
            return None
        self._used.add(found[0].fileno())
        return found[0]

    async def bind(self, address: Address, key: str) -> Bound:
        """`Bind` of a process that serves alone. Raises: OSError."""
        one = self.find(address, key)
        if one is None:
            return await bind_own(address, key)
        return Bound.of(one.dup(), is_lent=True)

    def tell(self) -> None:
        """Log what is taken, and what is not: nobody accepts what connects there."""
        for name, one in self._sockets:
            if one.fileno() in self._used:
                _LOG.info(
                    "systemd has opened %s (%s): a listener takes from it", address_of(one), name or "no name"
                )
            else:
                _LOG.warning(
                    "systemd has opened %s (%s), and no listener has this name or address, so who connects there "
                    "waits for ever: give the unit FileDescriptorName= with a listener's name, or take it out",
                    address_of(one), name or "no name",
                )  # fmt: skip


def _listening(file: int, name: str) -> socket.socket:
    """Raises: OSError."""
    called = f"LISTEN_FDS: descriptor {file} ({name or 'no name'})"
    try:
        one = socket.socket(fileno=file)
    except OSError as error:
        raise OSError(f"{called}: {error.strerror}") from error
    is_good = one.type == socket.SOCK_STREAM and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if not is_good:
        one.close()
        raise OSError(f"{called} is no listening stream socket: use ListenStream= and Accept=no in the unit")
    one.set_inheritable(False)
    one.setblocking(False)
    kernel.bound_unsent(one)
    kernel.receive_freely(one)
    return one


def _is_at(one: socket.socket, address: Address) -> bool:
    at = address_of(one)
    if at.path is not None or address.path is not None:
        return bool(address.path) and at.path == address.path
    takes_v4 = at.host == "::" and not one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return at.port == address.port and (at.host == address.host or (takes_v4 and address.host == "0.0.0.0"))
