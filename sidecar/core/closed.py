"""Addresses that no caller reaches by naming them (SPEC-PROTOCOLS 14, "Closed addresses").

A request in absolute form and a CONNECT choose their own destination. Without this list an app that can be made to
call a URL (server-side request forgery) would reach by way of the sidecar what only the node or the pod itself may
reach: its loopback, the metadata service of its cloud, our own ports. An address is looked at after its name has been
resolved, in every form that stands for an IPv4 address. Pure: what is local to the machine, the caller says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

IpAddress = IPv4Address | IPv6Address

_NETWORKS: Final = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # "this host" (RFC 1122 3.2.1.3): Linux connects to loopback
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local; metadata of AWS, GCP, Azure and others
        "168.63.129.16/32",  # Azure's agent
        "100.100.100.200/32",  # metadata of Alibaba Cloud
        "224.0.0.0/3",  # multicast, reserved and broadcast: no host has one
        "::/128",
        "::1/128",
        "fe80::/10",
        "fd00:ec2::254/128",  # metadata of AWS
        "fd20:ce::254/128",  # metadata of GCP
        "ff00::/8",
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48")
"""RFC 6052 2.1 and RFC 8215: the last 32 bits are an IPv4 address."""
_COMPATIBLE: Final = IPv6Network("::/96")
"""RFC 4291 2.5.5.1, deprecated; `::` and `::1` are no IPv4 addresses."""
_6TO4: Final = IPv6Network("2002::/16")
"""RFC 3056 2: the 32 bits behind the first 16 are an IPv4 address."""


def is_closed(address: str, port: int, is_local: Callable[[str], bool], own_ports: Iterable[int]) -> bool:
    """Whether nobody may reach `address` by naming it. What is no address at all is closed, too.

    Args:
        is_local: whether an address is one of this network namespace.
        own_ports: those that this process listens on: they are closed at all local addresses.
    """
    try:
        forms = tuple(_forms(ip_address(address.partition("%")[0])))
    except ValueError:
        return True
    if any(form in network for form in forms for network in _NETWORKS if network.version == form.version):
        return True
    return port in own_ports and any(is_local(str(form)) for form in forms)


def _forms(address: IpAddress) -> Iterable[IpAddress]:
    """The address, and the IPv4 address that it stands for."""
    yield address
    if not isinstance(address, IPv6Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif any(address in one for one in _NAT64) or (address in _COMPATIBLE and int(address) > 1):
        yield IPv4Address(int(address) & 0xFFFF_FFFF)
    elif address in _6TO4:
        yield IPv4Address(int(address) >> 80 & 0xFFFF_FFFF)
