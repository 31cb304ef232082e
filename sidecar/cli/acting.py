"""What a route does with a request beside sending it on, in words, for `sidecar explain`.

Asks what the data path asks (`core/actions`) and has no rules of its own. An address of the client is not known here,
so the lists of `clients` are told and not applied.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.schema.units import format_size
from sidecar.core.actions.cors import Cors
from sidecar.core.actions.redirect import Redirect
from sidecar.core.actions.rewrite import with_path, with_prefix
from sidecar.core.conditions import Entry
from sidecar.core.dataclass import dataclass
from sidecar.core.path import has_dot_segment
from sidecar.core.snapshot import Route


@dataclass(frozen=True, slots=True)
class Asked:
    """The request, as the routing table wants it."""

    listener: str
    method: bytes
    host: bytes
    path: bytes
    query: bytes
    fields: dict[bytes, bytes]
    client: str = ""
    """Who asks, by a certificate."""

    @property
    def target(self) -> bytes:
        """Path and query."""
        return self.path + b"?" + self.query if self.query else self.path


def told_of_actions(entry: Entry[Route], asked: Asked, *, is_tls: bool = False) -> Iterator[str]:
    """In the order in which they are done."""
    route = entry.route
    clients = route.clients
    if clients.allow or clients.deny:
        hops = clients.forwarded_hops
        by = f"in X-Forwarded-For, {hops} from its end" if hops else "of the connection"
        lists = (("allow", clients.allow), ("deny", clients.deny))
        told = "; ".join(f"{verb} {', '.join(networks)}" for verb, networks in lists if networks)
        yield f"clients, by the address {by}: {told}; 403 for others"
    if route.cors is not None and Cors.is_preflight(asked.method, asked.fields):
        lines = Cors(route.cors).preflight(asked.fields)
        fields = "; ".join(f"{name.decode()}: {value.decode()}" for name, value in lines)
        yield f"preflight: 204 with {fields}"
        return
    if route.max_request_body_bytes is not None:
        yield f"request body: 413 beyond {format_size(route.max_request_body_bytes)}"
    yield from _answered(entry, asked, is_tls=is_tls)


def _answered(entry: Entry[Route], asked: Asked, *, is_tls: bool) -> Iterator[str]:
    route, matched = entry.route, entry.prefix_end(asked.path)
    replaces = (route.redirect, route.rewrite) if route.redirect else (route.rewrite,)
    if any(one is not None and one.prefix is not None for one in replaces) and has_dot_segment(asked.path):
        yield "400: a dot segment could leave the rewritten prefix"
    elif route.redirect is not None:
        location = Redirect(route.redirect).location(asked.target, asked.host, matched, is_tls=is_tls)
        yield f"redirect: {route.redirect.status} to {location.decode()}"
    elif route.respond is not None:
        yield f"respond: {route.respond.status} with {len(route.respond.body)} bytes"
    elif route.rewrite.path is not None:
        yield f"rewritten to {with_path(asked.target, route.rewrite.path.encode()).decode()}"
    elif route.rewrite.prefix is not None:
        target = with_prefix(asked.target, route.rewrite.prefix.encode(), matched)
        yield f"rewritten to {target.decode()}"
