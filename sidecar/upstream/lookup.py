"""One look-up of a name: all its addresses, and how long they may be believed.

A name is looked for in the hosts file first, then asked of the nameservers by c-ares with the search list of
resolv.conf, as glibc does. Both are read anew for each look-up, the latter by a fresh channel: within one, c-ares
caches answers for up to an hour, failures too, and a name that just came to life would stay unknown. A channel costs
0.1 ms, in a thread, where aiodns is also imported the first time; c-ares has its own thread for the sockets.
Schedules nothing and remembers nothing: that is `resolver.py`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.upstream import hosts_file

if TYPE_CHECKING:
    import aiodns
    import pycares


class LookupFailed(Exception):
    """A name has no addresses now. The message is a fixed token, fit for a metric's attribute."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The addresses of a name, sorted and without duplicates; never empty."""

    addresses: tuple[str, ...]
    ttl_seconds: float | None
    """The smallest of all records on the way, aliases included; None if the hosts file answered."""


class CaresLookup:
    """Looks names up with c-ares. Stateless, so any number of look-ups may run at once."""

    __slots__ = ("_nameservers", "_timeout_seconds", "_tries")

    def __init__(
        self, *, nameservers: Sequence[str] = (), timeout_seconds: float = 1.5, tries: int = 2
    ) -> None:
        """`nameservers` are `address` or `address:port`; none means those of resolv.conf.

        `timeout_seconds` is for the first try of each query; later ones may take longer.
        """
        self._nameservers = tuple(nameservers)
        self._timeout_seconds = timeout_seconds
        self._tries = tries

    async def __call__(self, name: str) -> Answer:
        """Return the addresses of `name`, IPv4 and IPv6.

        Raises: LookupFailed, if there are none or the nameservers do not answer.
        """
        in_file = await asyncio.to_thread(hosts_file.look_up, name)
        if in_file:
            return Answer(_addresses(in_file), None)
        result = await self._ask(name)
        ttls = [node.ttl for node in result.nodes] + [alias.ttl for alias in result.cnames]
        return Answer(_addresses([node.addr[0].decode() for node in result.nodes]), min(ttls, default=0))

    async def _ask(self, name: str) -> pycares.AddrInfoResult:
        """Ask the nameservers."""
        loop = asyncio.get_running_loop()
        # Cancelled here, the thread's channel is dropped and closes itself.
        channel = await loop.run_in_executor(None, self._open, loop)
        try:
            return await channel.getaddrinfo(name, type=socket.SOCK_STREAM)
        except (UnicodeError, RuntimeError) as error:  # no IDNA form, or too long
            raise LookupFailed("bad_name") from error
        except _dns_error() as error:
            raise LookupFailed(_token(error)) from error
        finally:
            await channel.close()  # does not suspend, so a cancellation cannot leave the channel open

    def _open(self, loop: asyncio.AbstractEventLoop) -> aiodns.DNSResolver:
        """Make a channel, in a thread: reads resolv.conf and starts the channel's own thread."""
        import aiodns  # 60 ms, which a configuration without names need not pay
        import pycares

        try:
            return aiodns.DNSResolver(
                nameservers=self._nameservers or None,
                loop=loop,
                timeout=self._timeout_seconds,
                tries=self._tries,
                lookups="b",  # the hosts file was looked at already
            )
        except pycares.AresError as error:  # no file descriptors or memory left, for one
            raise LookupFailed("no_channel") from error


def _addresses(answer: Iterable[str]) -> tuple[str, ...]:
    """Sort the addresses, so that a nameserver which rotates them reports no change.

    Of loopback addresses one family is kept, IPv4 if it is there: `localhost` is both; they are one host, and an app
    bound to one would refuse every other call.
    """
    found = {ipaddress.ip_address(address) for address in answer}
    if not found:
        raise LookupFailed("no_data")
    if all(address.is_loopback for address in found):
        version = min(address.version for address in found)
        found = {address for address in found if address.version == version}
    ordered = sorted(found, key=lambda address: (address.version, int(address)))
    return tuple(str(address) for address in ordered)


def _dns_error() -> type[Exception]:
    import aiodns

    return aiodns.error.DNSError


def _token(error: Exception) -> str:
    import aiodns

    tokens = {
        aiodns.error.ARES_ENOTFOUND: "not_found",
        aiodns.error.ARES_ENODATA: "no_data",
        aiodns.error.ARES_ETIMEOUT: "timeout",
        aiodns.error.ARES_ESERVFAIL: "server_failure",
        aiodns.error.ARES_EREFUSED: "refused",
        aiodns.error.ARES_ECONNREFUSED: "nameserver_unreachable",
        aiodns.error.ARES_EBADNAME: "bad_name",
        aiodns.error.ARES_EBADRESP: "bad_response",
    }
    return tokens.get(error.args[0] if error.args else None, "failed")
