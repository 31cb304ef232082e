"""Why a request went to one route and not to another, for people: `sidecar explain` and the admin page.

Asks the table and its entries, and has no rules of its own. Not for the data path: it looks at every route.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TypeVar

from sidecar.core.conditions import Entry, text
from sidecar.core.dataclass import dataclass
from sidecar.core.hosts import asked_port, normal_host, normal_pattern, pattern_port
from sidecar.core.question import Question, TooMuchWork
from sidecar.core.routing import RoutingTable, path_holds
from sidecar.core.secrets import HIDDEN
from sidecar.core.snapshot import Match

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one match of one route says to a request."""

    route: str
    match_index: int
    is_match: bool
    """All of its conditions hold."""
    is_chosen: bool
    """The request goes here; true of at most one."""
    reason: str
    """The first condition that does not hold; else why it won or lost."""


def explain(
    table: RoutingTable[T],
    host: bytes,
    path: bytes,
    method: bytes,
    fields: Mapping[bytes, bytes],
    query: bytes,
    client: str = "",
    default_port: int = 80,
) -> tuple[Explanation, ...]:
    """Say for each match of each route, in the order of the file, why it takes this request or does not.

    Arguments as for `RoutingTable.find_entry`.
    """
    chosen, too_long = chosen_entry(table, host, path, method, fields, query, client, default_port)
    port = asked_port(host, default_port)
    question = Question(method, fields, query, most_work=inf, client=client, port=port)
    explanations = []
    for entry in table.entries:
        failure = (
            _host_failure(entry.match, host, port, entry.route.hidden)
            or _path_failure(entry.match, path, entry.route.hidden)
            or entry.failure(question)
        )
        is_chosen = chosen is not None and _identity(chosen) == _identity(entry)
        reason = failure or (
            "the most specific of those that hold" if is_chosen else too_long or _loss(chosen)
        )
        explanations.append(
            Explanation(entry.route.name, entry.match_index, failure is None, is_chosen, reason)
        )
    return tuple(explanations)


def chosen_entry(
    table: RoutingTable[T],
    host: bytes,
    path: bytes,
    method: bytes,
    fields: Mapping[bytes, bytes],
    query: bytes,
    client: str = "",
    default_port: int = 80,
) -> tuple[Entry[T] | None, str]:
    """The entry that takes the request, and why the data path refuses it for its length; empty if it does not."""
    try:
        return table.find_entry(host, path, method, fields, query, client, default_port), ""
    except TooMuchWork as error:
        return None, f"holds, but {error}"


def _identity(entry: Entry[T]) -> tuple[int, int]:
    return entry.order, entry.match_index


def _loss(chosen: Entry[T] | None) -> str:
    if chosen is None:
        return "holds, but a server may read this path as one that does not lead here: refused"
    return f"holds, but {chosen.route.name} is more specific or stands before it"


def _host_failure(match: Match, host: bytes, port: int, hidden: frozenset[str]) -> str | None:
    name = normal_host(host)
    if not match.hosts:
        return None
    for written in match.hosts:
        wanted, wanted_port = pattern_port(written)
        pattern = b"" if wanted == "*" else normal_pattern(wanted)
        is_host = pattern in (b"", name) or (pattern[:1] == b"*" and name[1:].endswith(pattern[1:]))
        if is_host and wanted_port in (None, port):
            return None
    hosts = ", ".join(HIDDEN if one in hidden else one for one in match.hosts)
    has_port = any(pattern_port(one)[1] is not None for one in match.hosts)
    asked = f"{text(name) or '(none)'}{f' with port {port}' if has_port else ''}"
    return f"host {asked} is none of {hosts}"


def _path_failure(match: Match, path: bytes, hidden: frozenset[str]) -> str | None:
    asked = match.path_asked()
    if asked is None or path_holds(asked, path):
        return None
    if match.grpc is not None:
        method = "" if match.grpc.method is None else f", method {match.grpc.method}"
        return f"path {text(path)} is not that of gRPC service {match.grpc.service}{method}"
    value = HIDDEN if asked.value in hidden else asked.value
    return f"path {text(path)} is not {asked.kind.value} {value}"
