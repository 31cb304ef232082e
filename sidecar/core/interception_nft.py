"""The rules of an interception as nft(8) reads them: the same as `core/interception.py` has for iptables.

A table of our own for each family, taken out and written again in one transaction, so that a second time changes
nothing and no connection meets half of it. Pure: `transport/nft.py` has it written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from typing import Final

from sidecar.core.interception import DNS_PORT, LOOPBACK, TO_POD, Interception

TABLE: Final = "sidecar_intercept"
_FAMILY: Final = {4: "ip", 6: "ip6"}


def nft_table(one: Interception, version: int) -> str:
    """Our table of one family (4 or 6), in place of what stands there."""
    return "\n".join(
        [
            nft_removed(version),
            f"table {' '.join(nft_name(version))} {{",
            *_chain("inbound", "prerouting", _inbound(one, version)),
            *_chain("outbound", "output", _outbound(one, version)),
            "}",
        ]
    )


def nft_name(version: int) -> tuple[str, str]:
    """Of our table: its family, and what it is called."""
    return _FAMILY[version], TABLE


def nft_removed(version: int) -> str:
    """No table of ours: it is made first, since one that is not there cannot be deleted."""
    name = " ".join(nft_name(version))
    return f"table {name}\ndelete table {name}"


def _chain(name: str, hook: str, rules: Iterable[str]) -> Iterator[str]:
    yield f"  chain {name} {{"
    yield f"    type nat hook {hook} priority -100; policy accept;"  # where iptables' table nat stands, too
    yield "    meta l4proto != tcp return"
    for rule in rules:
        yield f"    {rule}"
    yield "  }"


def _inbound(one: Interception, version: int) -> Iterator[str]:
    yield f"{_FAMILY[version]} daddr {LOOPBACK[version]} return"
    yield _ports((one.probes_port, *one.skip_inbound_ports))
    yield f"meta l4proto tcp redirect to :{one.inbound_port}"


def _outbound(one: Interception, version: int) -> Iterator[str]:
    family = _FAMILY[version]
    yield f"{family} saddr {TO_POD[version]} return"
    yield f"meta skuid {one.uid} return"
    yield 'oifname "lo" return'  # loopback, and the pod's own addresses
    yield f"{family} daddr {LOOPBACK[version]} return"
    yield _ports((DNS_PORT, *one.skip_outbound_ports))
    for cidr in one.skip_outbound_cidrs:
        if ip_network(cidr).version == version:
            yield f"{family} daddr {cidr} return"
    yield f"meta l4proto tcp redirect to :{one.outbound_port}"


def _ports(ports: Iterable[int]) -> str:
    return f"tcp dport {{ {', '.join(map(str, sorted(set(ports))))} }} return"
