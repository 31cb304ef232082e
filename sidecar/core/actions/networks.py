"""Whether a client's address is one of those that a route serves, and which address is the client's.

An IPv4 address that comes by IPv6 (`::ffff:192.0.2.1`, RFC 4291 2.5.5.2) is the IPv4 address. A zone (`%eth0`) is no
part of an address. Who has no address that can be read is served by no route that asks for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from sidecar.core.actions.policy import ClientPolicy

_FORWARDED_FOR: Final = b"x-forwarded-for"
MOST_CHARACTERS: Final = 64
"""Of what may be an address with a zone: clients write `X-Forwarded-For`, and what is read is remembered."""
MAPPED: Final = IPv6Network("::ffff:0:0/96")


class Networks:
    """A set of networks. A look-up costs as much as there are different lengths of prefixes, however many there
    are of each."""

    __slots__ = ("_by_shift",)

    def __init__(self, written: Iterable[str]) -> None:
        self._by_shift: dict[int, list[tuple[int, set[int]]]] = {4: [], 6: []}
        found: dict[tuple[int, int], set[int]] = {}
        for text in written:
            version, bits, number = _network(text)
            found.setdefault((version, (32 if version == 4 else 128) - bits), set()).add(number)
        for (version, shift), numbers in found.items():
            self._by_shift[version].append((shift, {number >> shift for number in numbers}))

    def holds(self, address: IPv4Address | IPv6Address) -> bool:
        number = int(address)
        return any(number >> shift in numbers for shift, numbers in self._by_shift[address.version])


class Clients:
    """Who may use a route, and whose address counts."""

    __slots__ = ("_allowed", "_allows_all", "_denied", "_hops", "has_rules")

    def __init__(self, policy: ClientPolicy) -> None:
        self._allowed = Networks(policy.allow)
        self._allows_all = not policy.allow
        self._denied = Networks(policy.deny)
        self._hops = policy.forwarded_hops
        self.has_rules = bool(policy.allow or policy.deny)

    def address(self, peer: tuple[str, int] | None, lookup: Mapping[bytes, bytes]) -> str | None:
        """The client's address in its short form.

        None where it has none (a UNIX socket), and where the entry that counts is no address. With fewer entries
        than hops the connection's own address counts, as in Envoy: the request has not come by those hops.
        """
        text = None if peer is None else peer[0]
        if self._hops:
            came = lookup.get(_FORWARDED_FOR, b"").split(b",")
            if len(came) >= self._hops and came != [b""]:
                text = _without_port(came[-self._hops].strip().decode("latin-1"))
        found = None if text is None or len(text) > MOST_CHARACTERS else read_address(text)
        return None if found is None else str(found)

    def serves(self, address: str | None) -> bool:
        """Whether a client with this address may use the route."""
        found = None if address is None else read_address(address)
        if found is None:
            return not self.has_rules
        return not self._denied.holds(found) and (self._allows_all or self._allowed.holds(found))


@lru_cache(maxsize=1024)  # 2 µs without; clients are many, so it is bounded
def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address that `text` is; None for anything else."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _without_port(text: str) -> str:
    """Some proxies write the port too: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _network(text: str) -> tuple[int, int, int]:
    """Version, bits of the prefix, and the address as a number; a mapped IPv4 network is the IPv4 network."""
    network = ip_network(text)
    number, bits = int(network.network_address), network.prefixlen
    if isinstance(network, IPv6Network) and bits >= 96 and network.subnet_of(MAPPED):
        return 4, bits - 96, number & 0xFFFFFFFF
    return network.version, bits, number
