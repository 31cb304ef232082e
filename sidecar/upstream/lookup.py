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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Endpoint
from sidecar.upstream import hosts_file

if TYPE_CHECKING:
    import aiodns
    import pycares


T = TypeVar("T")
CHANNELS: Final = 3
"""So many are tried until a look-up says that it has reached no nameserver."""
UNREACHABLE: Final = "nameserver_unreachable"


class LookupFailed(Exception):
    """A name has no addresses now. The message is a fixed token, fit for a metric's attribute."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The addresses of a name, sorted and without duplicates; never empty."""

    addresses: tuple[str, ...]
    ttl_seconds: float | None
    """The smallest of all records on the way, aliases included; None if the hosts file answered."""

    def endpoints(self, entry: Endpoint) -> tuple[Endpoint, ...]:
        """What `entry`, whose name was looked up, stands for."""
        return tuple(Endpoint(address, entry.port, name=entry.host) for address in self.addresses)


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
            return Answer(sorted_addresses(in_file), None)
        return await reaching(lambda: self._ask(name))

    async def _ask(self, name: str) -> Answer:
        async with self.channel() as channel:
            result = await addresses_of(channel, name)
        return Answer(found_in(result), ttl_of(result))

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[aiodns.DNSResolver]:
        """A fresh channel to the nameservers, closed at the end; what c-ares says of a failure in it becomes
        `LookupFailed`.

        Raises: LookupFailed.
        """
        loop = asyncio.get_running_loop()
        # Cancelled here, the thread's channel is dropped and closes itself.
        channel = await loop.run_in_executor(None, self._open, loop)
        try:
            with failures():
                yield channel
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


async def reaching(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask, and again by a fresh channel where c-ares has reached nobody: it says so at once, and rarely also of
    nameservers that are well, since it reads its configuration again, in a thread of its own, while it is used.

    Raises: LookupFailed.
    """
    for _ in range(CHANNELS - 1):
        try:
            return await ask()
        except LookupFailed as failure:
            if str(failure) != UNREACHABLE:
                raise
    return await ask()


@contextmanager
def failures() -> Iterator[None]:
    """What c-ares says of a failure becomes `LookupFailed`, and raises it."""
    try:
        yield
    except (UnicodeError, RuntimeError) as error:  # no IDNA form, or too long
        raise LookupFailed("bad_name") from error
    except _dns_error() as error:
        raise LookupFailed(_token(error)) from error


async def addresses_of(channel: aiodns.DNSResolver, name: str) -> pycares.AddrInfoResult:
    return await channel.getaddrinfo(name, type=socket.SOCK_STREAM)


def ttl_of(result: pycares.AddrInfoResult) -> float:
    """The smallest of all its records, aliases included."""
    return min([node.ttl for node in result.nodes] + [alias.ttl for alias in result.cnames], default=0)


def found_in(result: pycares.AddrInfoResult) -> tuple[str, ...]:
    """Its addresses, sorted."""
    return sorted_addresses([node.addr[0].decode() for node in result.nodes])


def sorted_addresses(answer: Iterable[str]) -> tuple[str, ...]:
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
        aiodns.error.ARES_ECONNREFUSED: UNREACHABLE,
        aiodns.error.ARES_EBADNAME: "bad_name",
        aiodns.error.ARES_EBADRESP: "bad_response",
    }
    return tokens.get(error.args[0] if error.args else None, "failed")
