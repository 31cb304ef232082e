"""A listening socket for an address of the configuration, or why it cannot be had and what to do about it.

For every server of the process: whoever reads the message may know nothing but the file, so it names the key.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import PurePath
from typing import Final

from sidecar.core.contract import SLOTTED
from sidecar.core.path_dataclass import dataclass
from sidecar.core.snapshot import Address
from sidecar.transport import kernel
from sidecar.transport.given import GIVEN, address_of

BACKLOG: Final = 4096
"""Connections that the kernel keeps until they are accepted."""


OWNER_ONLY: Final = 0o600
"""Mode of a UNIX socket's file: who may connect (unix(7))."""


@dataclass(frozen=True, **SLOTTED)
class Bound:
    """A socket that listens, and what this process is to do with it."""

    listening: socket.socket
    port: int
    """0 of a UNIX socket."""
    is_shared: bool = False
    """Other processes of ours have it too: to close it here does not end it."""
    accepts: bool = True
    """This process takes connections from it; else it only knows it."""
    others: tuple[socket.socket, ...] = ()
    """Further ones of the same address, which nobody else takes from."""
    lent_at: Address | None = None
    """Where it listens, if whoever began this process keeps it: what waits in it when this one ends is for the next.
    Else it is this process's own, or all of its processes'."""

    @classmethod
    def of(
        cls,
        one: socket.socket,
        *,
        is_shared: bool = False,
        accepts: bool = True,
        others: tuple[socket.socket, ...] = (),
        is_lent: bool = False,
    ) -> Bound:
        port = 0 if one.family == socket.AF_UNIX else one.getsockname()[1]
        return cls(one, port, is_shared, accepts, others, address_of(one) if is_lent else None)


Bind = Callable[[Address, str], Awaitable[Bound]]
"""Where listeners get their sockets from. Raises: OSError, with a text that names key and remedy."""


async def bind_own(address: Address, key: str) -> Bound:
    """`Bind` of a process that serves alone."""
    first, *others = bind_many(address, key, 1)
    return Bound.of(first, others=tuple(others))


def bind(address: Address, key: str, mode: int | None = None) -> socket.socket:
    """A socket that listens: what another process has left of this address (`given.py`), or a new one. Without
    SO_REUSEPORT: two processes on one port must be an error, not a lottery.

    The file of a UNIX socket outlives its process: one that nobody listens on is replaced. `key` is where the
    configuration has the address, such as `admin.address`. `mode`: of that file; None: what the umask leaves.

    Raises:
        OSError: it cannot be had; the text names the key, the address, the reason and a remedy.
    """
    given = GIVEN.take(address)
    if given:
        for one in given[1:]:
            one.close()
        return given[0]
    return _bind_anew(address, key, mode)


def _bind_anew(address: Address, key: str, mode: int | None = None) -> socket.socket:
    try:
        return _bound(address, mode)
    except OSError as error:
        reason = _of_path(address.path, error) if address.path is not None else _of_port(address, error)
        raise OSError(f"{key}: cannot listen on {address}: {reason}") from error


def bind_many(address: Address, key: str, count: int) -> list[socket.socket]:
    """A socket for each of `count` processes: the kernel deals connections out to them (socket(7), SO_REUSEPORT).

    The first is bound without SO_REUSEPORT, so that a port that somebody serves is refused, and allows it to the
    others after that. Of a UNIX socket, which knows no such thing, there is one for all. Of those that another
    process has left there may be more than `count`: somebody has to take from each.

    Raises:
        OSError: as `bind`.
    """
    found = GIVEN.take(address) or [_bind_anew(address, key)]
    if address.path is not None or len(found) >= count:
        return found
    try:
        for one in found:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        real = replace(address, port=found[0].getsockname()[1])
        for _ in range(count - len(found)):
            found.append(_bound(real, None, is_one_of_many=True))
    except OSError as error:
        for one in found:
            one.close()
        raise OSError(f"{key}: cannot listen on {address} {count} times: {error}") from error
    return found


def _bound(address: Address, mode: int | None, *, is_one_of_many: bool = False) -> socket.socket:
    if address.path is not None:
        _remove_stale(address.path)
        family = socket.AF_UNIX
    else:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if address.path is None:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_one_of_many:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if address.is_v6_only:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        elif mode is not None:
            os.fchmod(
                bound.fileno(), mode
            )  # before there is a file: at no moment may anybody else connect (unix(7))
        bound.bind(address.path if address.path is not None else (address.host, address.port))
        kernel.bound_unsent(bound)
        bound.listen(BACKLOG)  # at once: of two that have bound one port, only one may listen
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def _remove_stale(path: str) -> None:
    """Without waiting: one that listens and has no room for a connection is no less alive."""
    if not _is_socket(path):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:  # whatever is wrong with the path, `bind` says it too
        return False


def _of_port(address: Address, error: OSError) -> str:
    is_v6 = ":" in address.host
    match error.errno:
        case errno.EADDRINUSE:
            who = f"`ss -ltnp 'sport = :{address.port}'` shows it"
            return f"it is in use: stop what listens there ({who}), or choose another port"
        case errno.EACCES | errno.EPERM:
            return (
                f"uid {os.geteuid()} may not listen there: choose a port from 1024 on, or give the process the "
                "capability NET_BIND_SERVICE"
            )
        case errno.EADDRNOTAVAIL:
            here, everywhere = ("::1", "::") if is_v6 else ("127.0.0.1", "0.0.0.0")
            return (
                f"this host has no such address: take one that it has, {here} for calls from this host alone, or "
                f"{everywhere} for all"
            )
        case errno.EAFNOSUPPORT if is_v6:
            return "this host has no IPv6: take an IPv4 address, such as 127.0.0.1"
    return error.strerror or str(error)


def _of_path(path: str, error: OSError) -> str:
    folder = PurePath(path).parent
    match error.errno:
        case errno.EADDRINUSE if _is_socket(path):
            who = f"`ss -lxp src {path}` shows it"
            return f"it is in use: stop what listens there ({who}), or choose another path"
        case errno.EADDRINUSE:
            return "a file that is no socket is there: remove it, or choose another path"
        case errno.ENOENT:
            return f"there is no directory {folder}: make it"
        case errno.ENOTDIR:
            return f"{folder} is no directory: choose another path"
        case errno.EACCES | errno.EPERM:
            return f"uid {os.geteuid()} may not make a socket in {folder}: give it the right to write there"
        case errno.EROFS:
            remedy = "choose a directory that can be written to, such as a mounted emptyDir"
            return f"{folder} is on a read-only file system: {remedy}"
    return error.strerror or str(error)
