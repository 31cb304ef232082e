"""One look-up of the names of an address (PTR records, RFC 1035 3.5)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, cast

from sidecar.upstream.lookup import CaresLookup, reaching

if TYPE_CHECKING:
    import pycares

_PTR: Final = 12


async def names_of(address: str, channels: CaresLookup) -> tuple[str, ...]:
    """Return them in lower case, without a dot at the end; `channels` says which nameservers are asked.

    Raises: LookupFailed, if there are none or the nameservers do not answer.
    """
    return await reaching(lambda: _ask(ip_address(address).reverse_pointer, channels))


async def _ask(pointer: str, channels: CaresLookup) -> tuple[str, ...]:
    async with channels.channel() as channel:
        result = await channel.query_dns(pointer, "PTR")
    found = [cast("pycares.PTRRecordData", one.data) for one in result.answer if one.type == _PTR]
    return tuple(one.dname.lower().removesuffix(".") for one in found)
