"""Rules between the keys of routing actions. Reports each where it is best mended, as `route_rules.py` does."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.load.check import Checked
from sidecar.config.problems import Report
from sidecar.config.schema.policies import Policies
from sidecar.config.schema.routes import Route
from sidecar.config.yaml.nodes import Entry, MappingNode, Node, Sequence, is_null
from sidecar.core.hosts import pattern_port

DESTINATIONS = ("upstream", "weights", "redirect", "respond")
BODILESS = (204, 304)
_REDIRECT_KEYS = ("scheme", "host", "port", "path", "prefix")


def check_route(route: Checked[Route], report: Report) -> None:
    """Report every broken rule of what `route` does itself (the defaults are under it already)."""
    _redirect(route, report)
    _respond(route, report)
    _prefixes(route, report)
    _ports(route, report)


def check_policies(section: Checked[Policies], report: Report) -> None:
    """The rules of what may stand in `defaults` too."""
    _cors(section, report)
    for key, meaning in (("allow", "serves nobody"), ("deny", "denies nobody")):
        listed = section.node.get("clients", key)
        if isinstance(listed, Sequence) and not listed.items:
            report.add(listed.problem(f"an empty list {meaning}; leave `{key}` out"))
    prefix, path = section.node.entry("rewrite", "prefix"), section.node.entry("rewrite", "path")
    if prefix and path and not (is_null(prefix.value) or is_null(path.value)):
        report.add(path.key.problem("'path' beside 'prefix': a rewrite has one or the other"))


def given(node: MappingNode, *path: str) -> Entry | None:
    """The entry at `path`, if it says something."""
    entry = node.entry(*path)
    return None if entry is None or is_null(entry.value) else entry


def match_nodes(written: Node | None) -> Iterator[MappingNode]:
    """Each match of a route, whether it has one or a list of them."""
    nodes = written.items if isinstance(written, Sequence) else (written,)
    return (node for node in nodes if isinstance(node, MappingNode))


def _redirect(route: Checked[Route], report: Report) -> None:
    entry = given(route.node, "redirect")
    if entry is None or not isinstance(entry.value, MappingNode):
        return
    node = entry.value
    if not any(given(node, key) for key in _REDIRECT_KEYS):
        report.add(
            entry.key.problem(
                "this redirect leads to where the client is already: give one of scheme, host, port, path or prefix"
            )
        )
    prefix, path = given(node, "prefix"), given(node, "path")
    if prefix and path:
        report.add(path.key.problem("'path' beside 'prefix': a redirect has one or the other"))


def _respond(route: Checked[Route], report: Report) -> None:
    node = route.node.get("respond")
    if not isinstance(node, MappingNode):
        return
    body, file = given(node, "body"), given(node, "body_file")
    if body and file:
        report.add(file.key.problem("'body_file' beside 'body': an answer has one or the other"))
    status = route.value.respond.status if route.value.respond else None
    shown = body or file
    if status in BODILESS and shown:
        report.add(shown.key.problem(f"a response with status {status} has no body"))


def _prefixes(route: Checked[Route], report: Report) -> None:
    """What replaces a prefix needs one in every match."""
    for key in ("rewrite", "redirect"):
        entry = given(route.node, key, "prefix")
        if entry is None or route.is_bad(key, "prefix"):
            continue
        matches = list(match_nodes(route.node.get("match")))
        if not matches or any(match.entry("path", "prefix") is None for match in matches):
            name = route.value.name
            report.add(
                entry.key.problem(
                    f"`{key}.prefix` needs `match.path.prefix` in every match of route {name!r}"
                )
            )


def _ports(route: Checked[Route], report: Report) -> None:
    for match in match_nodes(route.node.get("match")):
        port, hosts = given(match, "port"), match.get("hosts")
        items = hosts.items if isinstance(hosts, Sequence) else ()
        values = [getattr(item, "value", None) for item in items]
        if port and any(isinstance(one, str) and pattern_port(one)[1] is not None for one in values):
            report.add(port.key.problem("'port' beside hosts with a port: say it in one place"))


def _cors(section: Checked[Policies], report: Report) -> None:
    entry = given(section.node, "cors")
    if entry is None or not isinstance(entry.value, MappingNode):
        return
    node = entry.value
    origins = node.get("allow_origins")
    if origins is None or (isinstance(origins, Sequence) and not origins.items):
        report.add(
            entry.key.problem('`cors` without `allow_origins` allows nobody: name the origins, or write "*"')
        )
    exposed = node.get("expose_headers")
    cors = section.value.cors
    if cors is None or not cors.allow_credentials or not isinstance(exposed, Sequence):
        return
    for item in exposed.items:
        if getattr(item, "value", None) == "*":
            report.add(
                item.problem(
                    "with `allow_credentials` a browser takes '*' for the name of a field: name the fields"
                )
            )
