"""A list of endpoints in a file of its own, which is watched: YAML or JSON with the key `endpoints`.

    endpoints:
    - "10.0.0.1:8080"
    - {address: "10.0.0.2:8080", weight: 3, zone: eu-west-1a, priority: 1}

Addresses only: names are looked up where the configuration has them. Nothing of the content is ever told: a
configuration may name any file that this process can read, a secret among them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from sidecar.config.files import MAX_FILE_BYTES, Files
from sidecar.config.problems import Report
from sidecar.config.schema.names import ZONE_PATTERN
from sidecar.config.schema.units import parse_endpoint
from sidecar.config.yaml.nodes import MappingNode, Node, Scalar, Sequence
from sidecar.core.own_lack import is_own_lack
from sidecar.core.snapshot import MOST_WEIGHT, Endpoint

MOST_TOLD: Final = 3
"""Problems in one message."""
_KEYS: Final = ("address", "weight", "priority", "zone")
_NO_LIST: Final = (
    "this is no list of endpoints in YAML: write `endpoints:`, and below it `- host:port` for each"
)


class BadEndpointFile(Exception):
    """A file that lists no endpoints; the text names place and remedy."""

    def __init__(self, text: str, *, is_own_lack: bool = False) -> None:
        """`is_own_lack`: nothing is known of the file, for want of file descriptors or memory."""
        super().__init__(text)
        self.is_own_lack = is_own_lack


def read_endpoints(path: str) -> tuple[Endpoint, ...]:
    """The endpoints that the file at `path` lists; an empty list is one. Blocking.

    Raises: BadEndpointFile.
    """
    try:
        content = Files().read(path)
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror or error}"
        raise BadEndpointFile(message, is_own_lack=is_own_lack(error)) from None
    if not content.strip():
        raise BadEndpointFile(f"{path}: it is empty: write `endpoints: []` for none")
    if len(content) > MAX_FILE_BYTES:
        raise BadEndpointFile(f"{path}: it has more than {MAX_FILE_BYTES} bytes: divide it")
    from sidecar.config.yaml import parse  # 10 MiB, which a process without such a file need not have

    report = Report()
    top = parse.parse_bytes(content, path, {}, report)
    if top is None or report:
        raise BadEndpointFile(_told(report, path, is_ours=False))
    found = _endpoints(top, report)
    if report:
        raise BadEndpointFile(_told(report, path, is_ours=True))
    return found


def _told(report: Report, path: str, *, is_ours: bool) -> str:
    """The first problems, in the order of the file.

    What the YAML reader says may quote the content: of that the place alone is told.
    """
    problems = report.sorted((path,))
    told = [
        f"{one.file}:{one.line}:{one.column}: {one.message if is_ours else _NO_LIST}"
        for one in problems[:MOST_TOLD]
    ]
    more = len(problems) - MOST_TOLD
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")


def _endpoints(top: MappingNode, report: Report) -> tuple[Endpoint, ...]:
    for name, entry in top.entries.items():
        if name != "endpoints":
            report.add(entry.key.problem("unknown key: `endpoints` alone is known here"))
    listed = top.get("endpoints")
    if not isinstance(listed, Sequence):
        report.add((listed or top).problem("`endpoints` must be a list of addresses"))
        return ()
    found: dict[Endpoint, Node] = {}
    for item in listed.items:
        endpoint = _endpoint(item, report)
        if endpoint is not None and endpoint in found:
            report.add(
                item.problem(
                    f"this endpoint stands at {found[endpoint].place} already: leave one of them out"
                )
            )
        elif endpoint is not None:
            found[endpoint] = item
    return tuple(found)


def _endpoint(item: Node, report: Report) -> Endpoint | None:
    if not isinstance(item, MappingNode):
        return _address(item, report)
    for name, entry in item.entries.items():
        if name not in _KEYS:
            report.add(entry.key.problem(f"unknown key: known here are {', '.join(_KEYS)}"))
    address = item.get("address")
    if address is None:
        report.add(item.problem("missing key `address`"))
        return None
    endpoint = _address(address, report)
    weight = _number(item.get("weight"), "weight", 1, report)
    priority = _number(item.get("priority"), "priority", 0, report)
    zones = _zones(item.get("zone"), report)
    return None if endpoint is None else replace(endpoint, weight=weight, priority=priority, zones=zones)


def _address(node: Node, report: Report) -> Endpoint | None:
    try:
        endpoint = parse_endpoint(node.value if isinstance(node, Scalar) else None)
    except ValueError:
        report.add(node.problem('not an endpoint: write an address with its port, as in "10.0.0.1:8080"'))
        return None
    if endpoint.is_https:
        report.add(node.problem("leave https:// out: give the upstream a `tls`"))
    elif not endpoint.is_literal:
        report.add(
            node.problem("a name: write its IP address, or put the name into the configuration's `endpoints`")
        )
    else:
        return endpoint
    return None


def _number(node: Node | None, name: str, default: int, report: Report) -> int:
    if node is None:
        return default
    value = node.value if isinstance(node, Scalar) else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_WEIGHT:
        return value
    report.add(node.problem(f"`{name}` must be a whole number from 0 to {MOST_WEIGHT}"))
    return default


def _zones(node: Node | None, report: Report) -> tuple[str, ...]:
    if node is None:
        return ()
    value = node.value if isinstance(node, Scalar) else None
    if isinstance(value, str) and re.match(ZONE_PATTERN, value):
        return (value,)
    report.add(node.problem("`zone` must be a text of up to 63 letters, digits, '.', '_' and '-'"))
    return ()
