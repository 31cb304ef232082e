"""Where a running sidecar is asked, read from its configuration in a fraction of the time that a whole load takes.

For commands that run often and must start fast: a health check each few seconds, a hook of the kubelet. Knows no
rule and no other key, and never imports all of them; whether a file is good is `load.py`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.config.files import Files, beside
from sidecar.config.problems import ConfigError, Report
from sidecar.config.schema.addresses import ADMIN_ADDRESS, PROBES_ADDRESS
from sidecar.config.schema.units import parse_address
from sidecar.config.tell.hidden_in_problems import without_secrets
from sidecar.config.yaml import parse
from sidecar.config.yaml.nodes import MappingNode, Scalar, is_null
from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import Address


@dataclass(frozen=True, slots=True)
class ServerAddresses:
    """The two servers of a sidecar that are no part of its data path."""

    probes: Address = PROBES_ADDRESS
    admin: Address = ADMIN_ADDRESS
    token_file: str | None = None


def server_addresses(path: str, environ: Mapping[str, str]) -> ServerAddresses:
    """Read the file or directory at `path`; problems elsewhere in it do not matter.

    Raises:
        ConfigError: it cannot be read, or what should be an address is none.
    """
    files, report, elsewhere = Files(), Report(), Report()
    tops: list[MappingNode] = []
    sources: dict[str, tuple[tuple[str, ...], MappingNode | None]] = {}
    for name, content in files.read_configuration(path, report).items():
        within = Report()
        top = parse.parse_bytes(content, name, environ, within)
        sources[name] = (parse.lines(content, top), top)
        if top is not None:
            tops.append(top)
        for problem in within.sorted(()):
            (report if top is None else elsewhere).add(problem)
    nodes = [_first(tops, key, "address") for key in ("probes", "admin")]
    for problem in elsewhere.sorted(()):
        if any(node and (node.source.name, node.line) == (problem.file, problem.line) for node in nodes):
            report.add(problem)
    probes, admin = (
        _address(node, built_in, report)
        for node, built_in in zip(nodes, (PROBES_ADDRESS, ADMIN_ADDRESS), strict=True)
    )
    if report:
        raise ConfigError(without_secrets(report.sorted(files.names), sources))
    token = _first(tops, "admin", "token_file")
    return ServerAddresses(probes, admin, None if token is None else beside(token))


def server_addresses_or_usual(
    path: str, environ: Mapping[str, str]
) -> tuple[ServerAddresses, ConfigError | None]:
    """The same, and the usual addresses where the file tells none, with the reason: a bad file changes nothing in a
    process that runs, so it must neither look ill for it nor go unasked.
    """
    try:
        return server_addresses(path, environ), None
    except ConfigError as error:
        return ServerAddresses(), error


def _first(tops: list[MappingNode], *path: str) -> Scalar | None:
    found = (node for top in tops if isinstance(node := top.get(*path), Scalar) and not is_null(node))
    return next(found, None)


def _address(node: Scalar | None, built_in: Address, report: Report) -> Address:
    if node is None or node.is_broken:
        return built_in
    try:
        return parse_address(node.value)
    except ValueError as error:
        report.add(node.problem(str(error)))
        return built_in
