"""Configuration files → a snapshot, or every problem in them. The public face of this package.

Reading is lenient and judging is not: each part is read as far as it can be, every rule is tried, and
only when nothing at all was reported is a snapshot built.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from sidecar.config.files import Files, beside
from sidecar.config.load import (
    health_rules,
    route_rules,
    server_rules,
    share_rules,
    slips,
    tls_rules,
    upstream_rules,
)
from sidecar.config.load.advice import advice
from sidecar.config.load.check import Checked, check
from sidecar.config.load.defaults import with_defaults
from sidecar.config.load.origins import Origins
from sidecar.config.load.strict import strict_advice
from sidecar.config.load.urls import urls_of
from sidecar.config.problems import ConfigError, Problem, Report
from sidecar.config.schema import reading
from sidecar.config.schema.addresses import LISTENER_ADDRESSES
from sidecar.config.schema.file import BUILT_IN, File, Settings
from sidecar.config.schema.listeners import ListenerSection
from sidecar.config.schema.names import TAKEN, is_extension, own_name
from sidecar.config.schema.passed import passed_route
from sidecar.config.schema.policies import Policies
from sidecar.config.schema.readers import nearest
from sidecar.config.schema.routes import Route, filters
from sidecar.config.schema.section import keys_of, stored
from sidecar.config.schema.units import parse_upstream_url
from sidecar.config.schema.upstreams import UpstreamSection, implicit_upstream
from sidecar.config.yaml import parse
from sidecar.config.yaml.nodes import (
    LONG_TEXTS,
    Entry,
    MappingNode,
    Node,
    Scalar,
    Sequence,
    describe,
    given_by_environment,
    is_null,
    weight,
)
from sidecar.core import snapshot as core
from sidecar.core.dataclass import dataclass

__all__ = ["ConfigError", "Loaded", "load_file", "load_text"]

MAX_PROBLEMS = 1000
MAX_LAID_NODES = 1_000_000
"""Nodes of `defaults` times the routes that have them: a megabyte of each would fill any memory."""
_PARTS = ("upstreams", "defaults", "routes")
UNMATCHED = "SIDECAR_UNMATCHED"
"""The environment variable that says what listeners do that have no `unmatched` of their own: whoever makes an app's
calls go through a sidecar (`sidecar inject`) knows that the app calls more than the routes name."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that holds, and where each route's policies came from."""

    snapshot: core.Snapshot
    origins: Origins
    warnings: tuple[Problem, ...] = ()
    """What is sound and rarely meant, without the lines themselves."""


def load_file(
    path: str | os.PathLike[str],
    environ: Mapping[str, str] | None = None,
    most_routes: int | None = None,
    *,
    is_strict: bool = False,
) -> Loaded:
    """Load a file, or a directory's *.yaml and *.yml merged in the order of their names.

    In a directory, `routes` and `upstreams` are put together and `version` may stand in each file; any
    other key belongs into one of them.

    Args:
        environ: for `${NAME}`; the process's own environment by default.
        most_routes: that the memory of whoever serves them is enough for; None: any number.
        is_strict: warn of what does nothing too (see `load/strict.py`).

    Raises:
        ConfigError: with every problem found.
    """
    report, files = Report(), Files()
    contents = files.read_configuration(os.fspath(path), report)
    environ = os.environ if environ is None else environ
    return _load(contents, environ, files, report, most_routes, is_strict=is_strict)


def load_text(
    text: str,
    name: str = "sidecar.yaml",
    environ: Mapping[str, str] | None = None,
    *,
    is_strict: bool = False,
) -> Loaded:
    """Load `text` as if it were the content of the file `name`, with an empty environment by default.

    Raises:
        ConfigError: with every problem found.
    """
    content = text.encode("utf-8", "surrogatepass")
    files = Files()
    files.keep(name, content)
    return _load({name: content}, environ or {}, files, Report(), is_strict=is_strict)


def _load(
    contents: Mapping[str, bytes],
    environ: Mapping[str, str],
    files: Files,
    report: Report,
    most_routes: int | None = None,
    *,
    is_strict: bool = False,
) -> Loaded:
    is_whole = not report
    documents = [parse.parse_bytes(data, name, environ, report) for name, data in contents.items()]
    readable = [node for node in documents if node is not None]
    loaded = None
    if readable:
        # A file that cannot be read at all may hold what the others refer to: judge them only together.
        is_whole = is_whole and len(readable) == len(documents)
        whole = _together(readable, report)
        if is_whole and _have_room(whole, most_routes, report) and _is_laid_within_bounds(whole, report):
            unmatched = environ.get(UNMATCHED)
            loaded = _Assembly(whole, files, report, is_strict, unmatched).loaded()
    if report or loaded is None:
        # Many expressions, for bad files alone.
        from sidecar.config.tell.hidden_in_problems import without_secrets

        sources = {
            name: (parse.lines(contents[name], top), top)
            for name, top in zip(contents, documents, strict=True)
        }
        problems = without_secrets(_the_first(report.sorted(files.names)), sources)
        raise ConfigError(problems, files.wanted, files.digest())
    return loaded


def _the_first(problems: list[Problem]) -> list[Problem]:
    """As many as somebody may read, and how many there are beyond; they end up in a log too."""
    if len(problems) <= MAX_PROBLEMS:
        return problems
    told, rest = problems[:MAX_PROBLEMS], problems[MAX_PROBLEMS:]
    count = f"{len(rest)} more problems from here on" if len(rest) > 1 else "one more problem here"
    return [*told, replace(rest[0], message=count, text="")]


def _have_room(whole: MappingNode, most_routes: int | None, report: Report) -> bool:
    """Before anything is made of them: a process that passes its container's limit is killed."""
    routes = whole.entries.get("routes")
    if most_routes is None or routes is None or not isinstance(routes.value, Sequence):
        return True
    count = len(routes.value.items)
    if count <= most_routes:
        return True
    report.add(
        routes.key.problem(
            f"{count} routes do not fit into this container's limit of memory, which is enough for {most_routes}: "
            "raise the limit (16 KiB a route), or divide the routes among several sidecars"
        )
    )
    return False


def _is_laid_within_bounds(whole: MappingNode, report: Report) -> bool:
    """Whether `defaults` under all routes are no more than can be read in some seconds."""
    defaults, routes = whole.entry("defaults"), whole.get("routes")
    if defaults is None or not isinstance(routes, Sequence):
        return True
    nodes, count = weight(defaults.value), len(routes.items)
    if nodes * count <= MAX_LAID_NODES:
        return True
    told = f"`defaults` has {nodes} nodes{LONG_TEXTS}, which {count} routes would have: more than {MAX_LAID_NODES}"
    report.add(defaults.key.problem(f"{told}; write what few of them need into these"))
    return False


def _together(documents: list[MappingNode], report: Report) -> MappingNode:
    """The top levels of several files as one."""
    first = documents[0]
    entries = dict(first.entries)
    for node in documents[1:]:
        for key, entry in node.entries.items():
            known = None if is_extension(key) else entries.get(key)
            entries[key] = entry if known is None else _joined(known, entry, report)
    return MappingNode(first.source, first.line, first.column, entries)


def _joined(known: Entry, entry: Entry, report: Report) -> Entry:
    """One top-level key that two files have."""
    one, two = known.value, entry.value
    if is_null(one) or is_null(two):
        return entry if is_null(one) else known
    if entry.key.text == "routes" and isinstance(one, Sequence) and isinstance(two, Sequence):
        return Entry(known.key, Sequence(one.source, one.line, one.column, one.items + two.items))
    if entry.key.text == "upstreams" and isinstance(one, MappingNode) and isinstance(two, MappingNode):
        for name in one.entries.keys() & two.entries.keys():
            key, place = two.entries[name].key, one.entries[name].key.place
            report.add(key.problem(f"duplicate upstream {name!r}: first given at {place}"))
        merged = {**one.entries, **two.entries}
        return Entry(known.key, MappingNode(one.source, one.line, one.column, merged))
    is_version = entry.key.text == "version" and isinstance(one, Scalar) and isinstance(two, Scalar)
    if not is_version or one.value != two.value:  # type: ignore[union-attr]
        place = known.key.place
        report.add(entry.key.problem(f"{entry.key.text!r} stands in two files: first given at {place}"))
    return known


class _Assembly:
    """One load, part by part. Collects what is sound, and reports the rest."""

    def __init__(
        self, top: MappingNode, files: Files, report: Report, is_strict: bool, unmatched: str | None = None
    ) -> None:
        """`unmatched`: what the environment says of listeners that do not say it themselves."""
        self._unmatched = unmatched
        self._top = top
        self._is_strict = is_strict
        self._files = files
        self._report = report
        if unmatched and unmatched not in (one.value for one in core.Unmatched):
            words = " or ".join(one.value for one in core.Unmatched)
            report.add(
                top.problem(f"the environment variable {UNMATCHED} says {unmatched!r}: it has to be {words}")
            )
        self._written: dict[str, tuple[MappingNode, MappingNode]] = {}

    def loaded(self) -> Loaded | None:
        """None, with the reasons reported, when there is any problem."""
        settings = self._settings()
        upstreams = self._upstreams()
        routes = self._routes()
        bodies = [(self._body(route, "fallback"), self._body(route, "respond")) for route in routes]
        tls_rules.clashing(_urls(routes), self._report)
        share_rules.check_scopes(routes, self._top, self._report)
        if self._report or settings is None:
            return None
        served = self._served(settings)
        snapshot = replace(
            settings.value.store(BUILT_IN),
            passed=MappingProxyType(self._passed(served)),
            listeners=MappingProxyType(served),
            upstreams=MappingProxyType(upstreams | _implicit_upstreams(routes)),
            routes=tuple(_stored(route, served, both) for route, both in zip(routes, bodies, strict=True)),
            files=self._files.names,
            digest=self._files.digest(),
        )
        found = [*advice(settings, self._top, upstreams, routes)]
        if self._is_strict:
            found += strict_advice(self._top, snapshot, routes)
        warnings = tuple(replace(one, text="") for one in found)
        return Loaded(self._with_files(snapshot, settings), Origins(self._written), warnings)

    def _with_files(self, snapshot: core.Snapshot, settings: Checked[Settings]) -> core.Snapshot:
        """With paths that hold from everywhere."""
        snapshot = replace(snapshot, share=share_rules.share(snapshot.share, settings.node))
        node = settings.node.get("admin", "token_file")
        if not isinstance(node, Scalar) or is_null(node):
            return snapshot
        return replace(snapshot, admin=replace(snapshot.admin, token_file=beside(node)))

    def _served(self, settings: Checked[Settings]) -> dict[str, core.Listener]:
        sections = settings.value.listeners
        if sections is None:
            sections = dict.fromkeys(LISTENER_ADDRESSES, reading.read(ListenerSection, {}))
        served = {name: section.listener(name) for name, section in sections.items()}
        for name, listener in served.items():
            node = settings.node.get("listeners", name)
            if self._unmatched and not settings.is_given("listeners", name, "unmatched"):
                served[name] = listener = replace(listener, unmatched=core.Unmatched(self._unmatched))
            if listener.tls is not None and isinstance(node, MappingNode):
                served[name] = replace(listener, tls=tls_rules.listener_tls(listener.tls, node))
        return served

    def _passed(self, served: Mapping[str, core.Listener]) -> dict[str, core.Route]:
        """What `defaults` says holds for what no route names, but for what only a route can mean."""
        node = self._top.get("defaults")
        policies = check(Policies, node, Report()) if isinstance(node, MappingNode) else None
        section = None if policies is None else policies.value
        return {
            name: passed_route(listener, section)
            for name, listener in served.items()
            if listener.unmatched is core.Unmatched.PASS_THROUGH
        }

    def _settings(self) -> Checked[Settings] | None:
        top = self._top
        entries = {
            key: entry for key, entry in top.entries.items() if key not in _PARTS and not is_extension(key)
        }
        node = MappingNode(top.source, top.line, top.column, entries)
        settings = check(Settings, node, self._report, names=File)
        if settings is not None:
            server_rules.check_settings(settings, self._report)
            share_rules.check_share(settings, self._report)
        return settings

    def _part(self, key: str, kind: type[Node]) -> Node | None:
        """A part of the top level, reported when it is of another kind."""
        node = self._top.get(key)
        if node is None or isinstance(node, kind):
            return node
        wanted = "a list" if kind is Sequence else "a mapping"
        if not is_null(node) or kind is Sequence:
            told = f"expected {wanted}, got {describe(node)}{slips.of_part(key, node)}"
            self._report.add(node.problem(told))
        return None

    def _upstreams(self) -> dict[str, core.Upstream]:
        found: dict[str, core.Upstream] = {}
        sections: dict[str, Checked[UpstreamSection]] = {}
        node = self._part("upstreams", MappingNode)
        entries = node.entries if isinstance(node, MappingNode) else {}
        for name, entry in entries.items():
            section = self._upstream(name, entry)
            if section is not None:
                sections[name] = section
                upstream = section.value.upstream(name)
                if upstream.tls is not None:
                    upstream = replace(upstream, tls=tls_rules.upstream_tls(upstream.tls, section.node))
                found[name] = upstream
        health_rules.check_failovers(sections, entries, self._report)
        return found

    def _upstream(self, name: str, entry: Entry) -> Checked[UpstreamSection] | None:
        try:
            own_name(name)
        except ValueError as error:
            self._report.add(entry.key.problem(str(error)))
        if not isinstance(entry.value, MappingNode):
            told = f"expected a mapping, got {describe(entry.value)}{slips.of_upstream(entry.value)}"
            self._report.add(entry.value.problem(told))
            return None
        section = check(UpstreamSection, entry.value, self._report)
        endpoints = entry.value.get("endpoints")
        if isinstance(endpoints, Sequence) and not endpoints.items:
            self._report.add(endpoints.problem(f"upstream {name!r} has no endpoint"))
        if section is not None and isinstance(endpoints, Sequence):
            self._original_alone(section.value, endpoints)
        if section is not None:
            tls_rules.check_upstream(name, section, entry, self._report)
            health_rules.check_health(section, self._report)
            upstream_rules.check_upstream(section, self._report)
        return section

    def _original_alone(self, section: UpstreamSection, node: Sequence) -> None:
        """Where a client was going is no member of a group, and nobody has a certificate for it."""
        endpoints = section.endpoints or []
        if all(one.address != core.ORIGINAL for one in endpoints):
            return
        if len(endpoints) > 1:
            self._report.add(
                node.problem("`original` stands for wherever a client was going: it stands alone")
            )
        if section.tls is not None:
            self._report.add(node.problem("`original` takes whatever the client speaks, without `tls`"))

    def _known(self) -> route_rules.Known:
        listeners = self._top.get("listeners")
        names = listeners.entries.keys() if isinstance(listeners, MappingNode) else LISTENER_ADDRESSES.keys()
        defaults = self._top.get("defaults")
        return route_rules.Known(
            self._named_upstreams(), names, defaults if isinstance(defaults, MappingNode) else None
        )

    def _named_upstreams(self) -> Collection[str]:
        """Of a list too, which some write instead of a mapping: it was reported, and its names are known."""
        node = self._top.get("upstreams")
        if isinstance(node, Sequence):
            items = (item.get("name") for item in node.items if isinstance(item, MappingNode))
            return {item.text for item in items if isinstance(item, Scalar)}
        return node.entries.keys() if isinstance(node, MappingNode) else ()

    def _defaults(self) -> MappingNode | None:
        node = self._part("defaults", MappingNode)
        if not isinstance(node, MappingNode):
            return None
        section = check(Policies, node, self._report)
        if section is not None:
            route_rules.check_policies(section, self._report)
            route_rules.check_header_maps(section, self._report)
        return node

    def _routes(self) -> list[Checked[Route]]:
        defaults, known = self._defaults(), self._known()
        if self._top.entry("routes") is None:
            self._report.add(self._top.problem(f"missing key 'routes'{self._misspelt('routes')}"))
        node = self._part("routes", Sequence)
        found: list[Checked[Route]] = []
        for item in node.items if isinstance(node, Sequence) else ():
            if not isinstance(item, MappingNode):
                self._report.add(item.problem(f"expected a mapping, got {describe(item)}"))
                continue
            route = self._route(item, defaults, known)
            if route is not None:
                found.append(route)
        return found

    def _misspelt(self, key: str) -> str:
        known = keys_of(File)
        others = [name for name in self._top.entries if name not in known and not is_extension(name)]
        return " (it may be misspelt above)" if nearest(key, others) else ""

    def _route(
        self, item: MappingNode, defaults: MappingNode | None, known: route_rules.Known
    ) -> Checked[Route] | None:
        effective = with_defaults(item, defaults)
        self._name_once(item, effective)
        route = check(Route, effective, self._report)
        if route is not None:
            route_rules.check_route(route, known, self._report)
            route_rules.check_header_maps(route, self._report)
        return route

    def _name_once(self, item: MappingNode, effective: MappingNode) -> None:
        node = item.get("name")
        if not isinstance(node, Scalar) or not isinstance(node.value, str) or node.is_broken:
            return
        if node.value == core.PASS_THROUGH:
            self._report.add(node.problem(TAKEN))
        first = self._written.setdefault(node.value, (item, effective))[0]
        if first is not item:
            place = first.entries["name"].value.place
            self._report.add(node.problem(f"duplicate route {node.value!r}: first given at {place}"))

    def _body(self, route: Checked[Route], key: str) -> bytes | None:
        """What the file of a fixed answer holds, if it names one."""
        node = route.node.get(key, "body_file")
        section = route.value.fallback if key == "fallback" else route.value.respond
        is_sound = section is not None and section.body_file is not None
        return self._files.read_body(node, self._report) if is_sound and isinstance(node, Scalar) else None


def _stored(
    route: Checked[Route], served: Mapping[str, core.Listener], bodies: tuple[bytes | None, bytes | None]
) -> core.Route:
    """A route, with what the rest of the configuration says of it."""
    section = route.value
    value: core.Route = section.store(Route.built_in)
    body, answer = bodies
    if body is not None and value.fallback is not None:
        value = replace(value, fallback=replace(value.fallback, body=body))
    if answer is not None and value.respond is not None:
        value = replace(value, respond=replace(value.respond, body=answer))
    direction = served[value.listener].direction
    policy = stored(section.circuit_breaker, core.BreakerPolicy())
    return replace(
        value,
        direction=direction,
        breaker=replace(policy, counts_rate_limited=direction is core.Direction.OUTBOUND),
        filters=filters(section.weights),
        hidden=given_by_environment(route.node),
    )


def _urls(routes: list[Checked[Route]]) -> Iterator[tuple[Node, core.Endpoint]]:
    for route in routes:
        for written, node in urls_of(route):
            yield node, parse_upstream_url(written)


def _implicit_upstreams(routes: list[Checked[Route]]) -> dict[str, core.Upstream]:
    """The upstreams of routes that name a URL."""
    found = (implicit_upstream(written) for route in routes for written, _ in urls_of(route))
    return {implicit.name: implicit for implicit in found}
