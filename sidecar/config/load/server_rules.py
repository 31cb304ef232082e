"""The rules of what the sidecar itself serves on: listeners, admin and probes, and who may collide with
whom.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from sidecar.config.load import tls_rules
from sidecar.config.load.check import Checked
from sidecar.config.problems import Report
from sidecar.config.schema.addresses import ADMIN_ADDRESS, LISTENER_ADDRESSES, LISTENER_DIRECTIONS
from sidecar.config.schema.file import BUILT_IN, Settings
from sidecar.config.schema.listeners import ListenerSection
from sidecar.config.yaml.nodes import Entry, MappingNode, Node, is_null
from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Address

_ALL_HOSTS = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class _Server:
    """Who binds an address, and where the file says so; None for a built-in one."""

    what: str
    address: Address
    node: Node | None


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
        is_missing = section.address_of(name) is None
        if is_missing and entry is not None and not settings.is_bad("listeners", name, "address"):
            report.add(entry.key.problem(f"listener {name!r} needs an `address`"))
        if entry is not None and not settings.is_bad("listeners", name, "direction"):
            _direction(name, section, entry, report)
        if entry is not None and not any(path[:3] == ("listeners", name, "tls") for path in settings.bad):
            tls_rules.check_listener(section, entry, report)


def _direction(name: str, section: ListenerSection, entry: Entry, report: Report) -> None:
    given, meant = section.direction, LISTENER_DIRECTIONS.get(name)
    node = entry.value.get("direction") if isinstance(entry.value, MappingNode) else None
    if given is None and meant is None:
        message = (
            f"listener {name!r} needs a `direction`: inbound for calls to this pod's app, or outbound for the "
            "app's calls to others"
        )
        report.add(entry.key.problem(message))
    elif node is not None and given is not None and meant not in (given, None):
        message = (
            f"the listener {name!r} cannot be {given.value}: leave `direction` out, or give it another name"
        )
        report.add(node.problem(message))


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
    taken: dict[str | int, dict[str, _Server]] = {}
    for server in _addresses(settings):
        address = server.address
        if address.port == 0 and address.path is None:
            continue
        beside = taken.setdefault(address.port if address.path is None else address.path, {})
        other = _at_same_address(address, beside)
        if other is not None:
            first, second = (other, server) if server.node is not None else (server, other)
            if second.node is not None:
                second_place = f"at {first.node.place}" if first.node else "built in"
                report.add(second.node.problem(_taken(second, first, second_place)))
        beside.setdefault(address.host, server)


def _at_same_address(address: Address, beside: Mapping[str, _Server]) -> _Server | None:
    """The first of those at this port, or of this path, that an address collides with. Does not look at each of them,
    for a file may have thousands.
    """
    if address.host in _ALL_HOSTS:
        return next(iter(beside.values()), None)
    return next((beside[host] for host in (address.host, *_ALL_HOSTS) if host in beside), None)


def _taken(server: _Server, by: _Server, where: str) -> str:
    return f"the address {server.address} of {server.what} is taken by {by.what} ({by.address}, {where})"


def _addresses(settings: Checked[Settings]) -> list[_Server]:
    value, node = settings.value, settings.node
    bound = value.store(BUILT_IN)
    found: list[tuple[str, Address | None, Node | None]] = []
    if value.listeners is None:
        found += [(f"listener {name!r}", address, None) for name, address in LISTENER_ADDRESSES.items()]
    for name, section in (value.listeners or {}).items():
        place = node.get("listeners", name, "address")
        found.append((f"listener {name!r}", section.address_of(name), place))
    found.append(("admin", bound.admin.address, node.get("admin", "address")))
    found.append(("probes", bound.probes, node.get("probes", "address")))
    return [
        _Server(what, address, None if is_null(place) else place) for what, address, place in found if address
    ]
