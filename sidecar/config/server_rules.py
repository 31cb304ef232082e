"""The rules of what the sidecar itself serves on: listeners, admin and probes, and who may collide with
whom.
"""

from __future__ import annotations

import ipaddress

from sidecar.config import build
from sidecar.config.addresses import ADMIN_ADDRESS, LISTENER_ADDRESSES
from sidecar.config.model import Settings
from sidecar.config.nodes import MappingNode, Node, is_null
from sidecar.config.problems import Report
from sidecar.config.validate import Checked
from sidecar.core.snapshot import Address


def check_settings(settings: Checked[Settings], report: Report) -> None:
    """Report every broken rule between the keys of the top level."""
    _listeners(settings, report)
    _admin(settings, report)
    _collisions(settings, report)


def _listeners(settings: Checked[Settings], report: Report) -> None:
    node = settings.node.get("listeners")
    if isinstance(node, MappingNode) and not node.entries:
        report.add(node.problem("no listener: leave `listeners` out to have the built-in ones"))
    for name, section in (settings.value.listeners or {}).items():
        entry = settings.node.entry("listeners", name)
        is_missing = build.listener_address(name, section) is None
        if is_missing and entry is not None and not settings.is_bad("listeners", name, "address"):
            report.add(entry.key.problem(f"listener {name!r} needs an `address`"))


def is_loopback(address: Address) -> bool:
    """True where only this host can connect."""
    return address.path is not None or ipaddress.ip_address(address.host).is_loopback


def _admin(settings: Checked[Settings], report: Report) -> None:
    section, node = settings.value.admin, settings.node.get("admin", "address")
    if section is None or section.address is None or node is None or settings.is_bad("admin", "token_file"):
        return
    if section.token_file is None and not is_loopback(section.address):
        message = (
            f"the admin API may change state: at {section.address} it needs a `token_file`, "
            f"or let it listen at {ADMIN_ADDRESS}"
        )
        report.add(node.problem(message))


def _collisions(settings: Checked[Settings], report: Report) -> None:
    """Two servers at one address: the later one is reported, or the one that the file gives."""
    taken: list[tuple[str, Address, Node | None]] = []
    for what, address, node in _addresses(settings):
        for other, theirs, their_node in taken:
            if not _is_same(address, theirs):
                continue
            if node is not None:
                where = f"at {their_node.place}" if their_node else "built in"
                report.add(node.problem(_taken(what, address, other, theirs, where)))
            elif their_node is not None:
                report.add(their_node.problem(_taken(other, theirs, what, address, "built in")))
        taken.append((what, address, node))


def _taken(what: str, address: Address, other: str, theirs: Address, where: str) -> str:
    return f"the address {address} of {what} is taken by {other} ({theirs}, {where})"


def _addresses(settings: Checked[Settings]) -> list[tuple[str, Address, Node | None]]:
    value, node = settings.value, settings.node
    found: list[tuple[str, Address | None, Node | None]] = []
    if value.listeners is None:
        found += [(f"listener {name!r}", address, None) for name, address in LISTENER_ADDRESSES.items()]
    for name, section in (value.listeners or {}).items():
        place = node.get("listeners", name, "address")
        found.append((f"listener {name!r}", build.listener_address(name, section), place))
    found.append(("admin", build.admin(value, None).address, node.get("admin", "address")))
    found.append(("probes", build.probes(value), node.get("probes", "address")))
    return [(what, address, None if is_null(place) else place) for what, address, place in found if address]


def _is_same(one: Address, other: Address) -> bool:
    if one.path is not None or other.path is not None:
        return one.path == other.path
    if one.port != other.port or one.port == 0:
        return False
    hosts = {one.host, other.host}
    return len(hosts) == 1 or bool(hosts & {"0.0.0.0", "::"})
