"""The rules by which the kernel sends a pod's connections through its sidecar (SPEC-PROTOCOLS 14, "Interception").

Two chains of the table `nat`: what comes to the pod goes to the inbound listener, what the app sends goes to the
outbound one. Both are written whole and at once (`iptables-restore --noflush`), and jumped to by one rule each, so
that a second time changes nothing. Pure: `transport/iptables.py` has them written. `core/interception_nft.py` says
the same for nft.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Final

from sidecar.core.dataclass import dataclass

INBOUND_CHAIN: Final = "SIDECAR_INBOUND"
OUTBOUND_CHAIN: Final = "SIDECAR_OUTBOUND"
UID: Final = 15015
"""The sidecar's own: what it sends is left out by it, so no other container may have it."""
DNS_PORT: Final = 53
TO_POD: Final = {4: "127.0.0.6", 6: "::6"}
"""What the sidecar's connections to its own pod leave from (`transport/dialing.py`)."""
SKIPPED_CIDRS: Final = (
    "169.254.0.0/16",  # link-local, and the metadata of most clouds
    "168.63.129.16/32",
    "100.100.100.200/32",
    "fe80::/10",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
)
LOOPBACK: Final = {4: "127.0.0.0/8", 6: "::1/128"}
"""By family."""


@dataclass(frozen=True, slots=True)
class Interception:
    """What is intercepted. The built-in values are those of a file without `listeners`."""

    uid: int = UID
    inbound_port: int = 15006
    outbound_port: int = 15001
    probes_port: int = 15021
    """Asked from outside, and answered by the sidecar itself."""
    skip_inbound_ports: tuple[int, ...] = ()
    """Of the pod: who calls there reaches the app without the sidecar."""
    skip_outbound_ports: tuple[int, ...] = ()
    """Of others: the app reaches them without the sidecar."""
    skip_outbound_cidrs: tuple[str, ...] = SKIPPED_CIDRS

    def __post_init__(self) -> None:
        """Raises: ValueError, with what is wrong."""
        ports = (self.inbound_port, self.outbound_port, self.probes_port)
        for port in (*ports, *self.skip_inbound_ports, *self.skip_outbound_ports):
            if not 0 < port < 65536:
                raise ValueError(f"{port} is no port: use 1 to 65535")
        if len(set(ports)) < len(ports):
            raise ValueError("the ports of inbound, outbound and probes must differ")
        if self.uid <= 0:
            raise ValueError("the sidecar's uid cannot be 0: everything that root sends would be left out")
        for cidr in self.skip_outbound_cidrs:
            try:
                ip_network(cidr)
            except ValueError as error:
                raise ValueError(f"{cidr!r} is no network such as 10.0.0.0/8: {error}") from None


def jumps() -> tuple[tuple[str, ...], ...]:
    """The two rules that lead to our chains, as iptables wants them behind `-A`, `-C` or `-D`."""
    return (
        ("PREROUTING", "-p", "tcp", "-j", INBOUND_CHAIN),
        ("OUTPUT", "-p", "tcp", "-j", OUTBOUND_CHAIN),
    )


def restored(one: Interception, version: int) -> str:
    """Our chains of one family (4 or 6), as iptables-restore reads them."""
    lines = ["*nat", f":{INBOUND_CHAIN} - [0:0]", f":{OUTBOUND_CHAIN} - [0:0]"]
    lines += [f"-A {INBOUND_CHAIN} {rule}" for rule in _inbound(one, version)]
    lines += [f"-A {OUTBOUND_CHAIN} {rule}" for rule in _outbound(one, version)]
    return "\n".join([*lines, "COMMIT", ""])


def removed() -> str:
    """The same for the end: empty chains, which then may be deleted."""
    return f"*nat\n:{INBOUND_CHAIN} - [0:0]\n:{OUTBOUND_CHAIN} - [0:0]\nCOMMIT\n"


def _inbound(one: Interception, version: int) -> Iterator[str]:
    yield f"-d {LOOPBACK[version]} -j RETURN"
    for port in (one.probes_port, *one.skip_inbound_ports):
        yield f"-p tcp --dport {port} -j RETURN"
    yield f"-p tcp -j REDIRECT --to-ports {one.inbound_port}"


def _outbound(one: Interception, version: int) -> Iterator[str]:
    yield f"-s {TO_POD[version]}/{32 if version == 4 else 128} -j RETURN"
    yield f"-m owner --uid-owner {one.uid} -j RETURN"
    yield "-o lo -j RETURN"  # loopback, and the pod's own addresses
    yield f"-d {LOOPBACK[version]} -j RETURN"
    for port in (DNS_PORT, *one.skip_outbound_ports):
        yield f"-p tcp --dport {port} -j RETURN"
    for cidr in one.skip_outbound_cidrs:
        if ip_network(cidr).version == version:
            yield f"-d {cidr} -j RETURN"
    yield f"-p tcp -j REDIRECT --to-ports {one.outbound_port}"
