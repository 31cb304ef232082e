"""`sidecar explain FILE --listener L [-X METHOD] [-H 'name: value'] URL`: what would happen to a request, and why.

Reads the file alone: which route, why not the others, every limit with the place it was given at, the deadline's
parts. `--admin URL` adds what a running sidecar knows of the route.
"""

from __future__ import annotations

import argparse
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import asdict, replace
from math import inf
from typing import Any

from sidecar.cli import plans
from sidecar.cli.acting import Asked, told_of_actions
from sidecar.cli.admin_client import AskFailed, Asking, add_token_file
from sidecar.cli.as_json import add_json, print_object
from sidecar.cli.served_names import told_of_connection
from sidecar.cli.tls_files import asked_of
from sidecar.config.load import ConfigError, Loaded, load_file
from sidecar.config.load.origins import From
from sidecar.config.schema.units import format_back_after, format_duration, format_share
from sidecar.core.dataclass import dataclass
from sidecar.core.deadline import budget
from sidecar.core.explain import Explanation, chosen_entry, explain
from sidecar.core.routing import RoutingTable
from sidecar.core.snapshot import Direction, Endpoint, Mode, Route, Snapshot
from sidecar.terminal import pager

MAX_CAUSES = 5
"""Requests that are named for a change of state."""
_OWN_LIMIT = "timeouts.request"
"""The part of a deadline that the route itself has."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A file and a request."""
    parser.add_argument("file", metavar="FILE", help="file or directory")
    parser.add_argument("url", metavar="URL", help="http://host/path?query, or a path alone")
    parser.add_argument("--listener", default="inbound", metavar="L", help="default: %(default)s")
    parser.add_argument("-X", "--method", default="GET", metavar="METHOD", help="default: %(default)s")
    parser.add_argument(
        "-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="that it has; any number"
    )
    parser.add_argument(
        "--client", default="", metavar="NAME", help="who asks: spiffe://…, a DNS name, or a subject"
    )
    parser.add_argument("--admin", metavar="URL", help="of a running sidecar, for live state")
    add_token_file(parser)
    add_json(parser)
    pager.add_no_pager(parser)


@dataclass(frozen=True, slots=True)
class Limit:
    """One effective policy value."""

    key: str
    value: str
    origin: str
    """`route`, `defaults` or `built in`, with the place where it was given."""


@dataclass(frozen=True, slots=True)
class Share:
    """One who has a say in the deadline."""

    source: str
    says: str
    milliseconds: float | None
    """None for a field that is ignored because it makes no sense, and for a limit that is off."""
    origin: str


@dataclass(frozen=True, slots=True)
class Answer:
    """All that is known of one request."""

    route: str | None
    place: str | None
    upstreams: tuple[str, ...]
    explanations: tuple[Explanation, ...]
    budget_ms: float | None
    budget_source: str | None
    deadline: tuple[Share, ...]
    limits: tuple[Limit, ...]
    connection: tuple[str, ...] = ()
    """What the client meets in its handshake, for people; empty in clear text."""
    retry: str = ""
    """What is tried again of this request, in words; empty where no upstream is asked. The same of the next three."""
    hedge: str = ""
    mirror: str = ""
    weights: str = ""
    """What becomes of the weights while a breaker refuses; empty where there is one upstream."""
    elsewhere: tuple[tuple[str, str], ...] = ()
    """Where no route takes it: other listeners, each with its route that would."""
    is_passed: bool = False
    """Where no route takes it: it goes to its host all the same."""
    actions: tuple[str, ...] = ()
    """What the route does with this request beside sending it on, in words."""
    live: Any = None


def main(options: argparse.Namespace) -> int:
    """Explain: 0 when a route takes the request, 1 when none does, 2 for wrong use or a bad file."""
    try:
        loaded = load_file(options.file)
        asked = _asked(options)
        admin = Asking(options.admin, options.token_file) if options.admin else None
        if asked.listener not in loaded.snapshot.listeners:
            known = ", ".join(loaded.snapshot.listeners)
            raise ValueError(f"there is no listener {asked.listener!r}; the file has {known}")
    except (ConfigError, AskFailed, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    answer = answer_of(loaded, asked)
    met = told_of_connection(loaded.snapshot.listeners[asked.listener], asked.host)
    answer = replace(answer, connection=tuple(met))
    if admin is not None and answer.route is not None:
        answer = replace(answer, live=_live(admin, answer.route))
    with pager.paged(options):
        if options.json:
            print_object(asdict(answer))
        else:
            print("\n".join(lines(answer, asked)))
    return 0 if answer.route is not None else 1


def answer_of(loaded: Loaded, asked: Asked) -> Answer:
    """What the configuration says to the request."""
    snapshot = loaded.snapshot
    table = RoutingTable([(route, route) for route in snapshot.routes if route.listener == asked.listener])
    port = 80 if snapshot.listeners[asked.listener].tls is None else 443
    request = (asked.host, asked.path, asked.method, asked.fields, asked.query, asked.client, port)
    explanations = explain(table, *request)
    entry, _ = chosen_entry(table, *request)
    if entry is None:
        elsewhere = tuple(_elsewhere(snapshot, asked))
        passed = snapshot.passed.get(asked.listener)
        is_passed = passed is not None and passed.direction is Direction.OUTBOUND and bool(asked.host)
        return Answer(
            None, None, (), explanations, None, None, (), (), elsewhere=elsewhere, is_passed=is_passed
        )
    route = entry.route
    whole = budget(asked.fields, route.deadline, route.timeouts.request_seconds, None)
    return Answer(
        route.name,
        str(loaded.origins.place_of(route.name)),
        tuple(_upstream(name, weight, loaded) for name, weight in route.upstreams),
        explanations,
        round(whole.seconds * 1000, 3) if whole.seconds < inf else None,
        whole.source or None,
        tuple(_shares(route, asked, loaded)),
        tuple(_limits(route.name, loaded)),
        retry=plans.retry(route, asked.method, asked.fields) if route.upstreams else "",
        hedge=plans.hedge(route, asked.method, asked.fields),
        mirror=plans.mirror(route, asked.method, asked.fields),
        weights=plans.weights(route),
        actions=tuple(told_of_actions(entry, asked, is_tls=port == 443)),
    )


def _elsewhere(snapshot: Snapshot, asked: Asked) -> Iterator[tuple[str, str]]:
    for listener in snapshot.listeners:
        table = RoutingTable([(route, route) for route in snapshot.routes if route.listener == listener])
        request = (asked.host, asked.path, asked.method, asked.fields, asked.query, asked.client)
        entry, _ = chosen_entry(table, *request)
        if entry is not None:
            yield listener, entry.route.name


def _asked(options: argparse.Namespace) -> Asked:
    parts = urllib.parse.urlsplit(options.url)
    if not options.url.startswith("/") and (parts.scheme not in ("http", "https") or not parts.netloc):
        raise ValueError(
            f"{options.url!r} is no URL: write http://{options.url}, or a path that begins with /"
        )
    fields: dict[bytes, bytes] = {}
    for header in options.header:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"-H {header!r} is not 'name: value'")
        fields[name.strip().lower().encode()] = value.strip().encode()
    fields.setdefault(b"host", parts.netloc.rpartition("@")[2].encode())
    path = (parts.path or "/").encode()
    return Asked(
        options.listener,
        options.method.encode(),
        fields[b"host"],
        path,
        parts.query.encode(),
        fields,
        options.client,
    )


def _upstream(name: str, weight: int, loaded: Loaded) -> str:
    upstream = loaded.snapshot.upstreams[name]
    told = f"{name} (weight {weight}): {', '.join(map(_endpoint, upstream.endpoints))}"
    if upstream.tls is not None:
        told = f"{told}, {asked_of(upstream)}"
    failover = upstream.failover
    if failover is None:
        return told
    return (
        f"{told}; {', then '.join(failover.to)} takes over when less than {format_share(failover.below)} of the "
        f"endpoints is usable or the breaker is open, until {format_back_after(failover.back)}"
    )


def _endpoint(endpoint: Endpoint) -> str:
    """With what decides between it and the others, where that is not the usual."""
    facts = [f"weight {endpoint.weight}"] if endpoint.weight != 1 else []
    facts += [f"priority {endpoint.priority}"] if endpoint.priority else []
    facts += [f"zone {zone}" for zone in endpoint.zones]
    return f"{endpoint} ({', '.join(facts)})" if facts else str(endpoint)


def _shares(route: Route, asked: Asked, loaded: Loaded) -> Iterator[Share]:
    """Each part of the deadline, as `core/deadline` reads it alone."""
    origins = loaded.origins.of_route(route.name)
    seconds = route.timeouts.request_seconds
    milliseconds = seconds * 1000 if seconds < inf else None
    yield Share(_OWN_LIMIT, format_duration(seconds), milliseconds, str(origins[_OWN_LIMIT]))
    if route.deadline.mode is Mode.OFF:
        return
    reading = replace(route.deadline, mode=Mode.ENFORCE)
    for name in (*reading.headers, b"baggage"):
        value = asked.fields.get(name)
        if value is None:
            continue
        alone = budget({name: value}, reading, inf, None)
        if alone.carried or alone.invalid:
            milliseconds = round(alone.seconds * 1000, 3) if alone.carried else None
            yield Share(name.decode(), value.decode("utf-8", "replace"), milliseconds, "the request")


def _limits(route: str, loaded: Loaded) -> Iterator[Limit]:
    """Every policy value that holds; built-in ones that are unset are left out."""
    unset = _unset_as_a_whole(route, loaded)
    for key, origin in loaded.origins.of_route(route).items():
        if key.partition(".")[0] in unset:
            continue
        if origin.text is not None:
            yield Limit(key, origin.text, str(origin))
        elif origin.source is not From.BUILT_IN:
            yield Limit(key, "unset", str(origin))


def _unset_as_a_whole(name: str, loaded: Loaded) -> frozenset[str]:
    """Policies that the route has not, so that no value of their keys holds."""
    (route,) = (one for one in loaded.snapshot.routes if one.name == name)
    held = {
        "fallback": route.fallback,
        "cors": route.cors,
        "hedge": route.hedge,
        "mirror": route.mirror,
    }
    return frozenset(key for key, value in held.items() if value is None)


def _live(admin: Asking, route: str) -> Any:
    """What a running sidecar says of the route's breakers, or why it says nothing."""
    try:
        return admin.get(f"/breakers/{urllib.parse.quote(route, safe='')}")
    except AskFailed as failed:
        return {"error": str(failed)}


def lines(answer: Answer, asked: Asked) -> Iterator[str]:
    """The answer for people."""
    where = (
        f"{asked.listener}: {asked.method.decode()} {asked.host.decode() or '(no host)'}{asked.path.decode()}"
    )
    yield where
    yield from (f"→ {told}" for told in answer.connection)
    if answer.route is None:
        to = (
            f"passed through to {asked.host.decode()}, under the policies of `defaults`"
            if answer.is_passed
            else "404"
        )
        yield f"→ no route: {to}"
        for listener, route in answer.elsewhere:
            yield f"  on another listener there is one: --listener {listener} takes it by route {route}"
    else:
        yield f"→ route {answer.route} ({answer.place})"
        yield from (f"→ {told}" for told in answer.actions)
        yield from (f"→ upstream {upstream}" for upstream in answer.upstreams)
    yield "\nRoutes of this listener, in the order of the file"
    for one in answer.explanations:
        mark = "→" if one.is_chosen else ("·" if one.is_match else "✗")
        number = f"[{one.match_index}]" if one.match_index else ""
        yield f"  {mark} {one.route}{number}: {one.reason}"
    if answer.route is None:
        return
    is_bounded = answer.budget_ms is not None
    yield (
        f"\nDeadline: {answer.budget_ms:g} ms, from the {answer.budget_source}"
        if is_bounded
        else "\nDeadline: none"
    )
    for share in answer.deadline:
        yield f"  {share.source}: {share.says} → {_leaves(share)}   ({share.origin})"
    if answer.weights:
        yield f"\nWhile a breaker is open: {answer.weights}"
    if answer.retry:
        yield f"\nRetries: {answer.retry}"
        yield f"Hedges: {answer.hedge}"
        yield f"Copies: {answer.mirror}"
    yield "\nPolicies"
    width = max(len(limit.key) for limit in answer.limits)
    for limit in answer.limits:
        yield f"  {limit.key:<{width}}  {limit.value}   ({limit.origin})"
    if answer.live is not None:
        yield "\nLive"
        yield from (f"  {line}" for line in _live_lines(answer.live))


def _leaves(share: Share) -> str:
    if share.milliseconds is not None:
        return f"{share.milliseconds:g} ms"
    return "no limit" if share.source == _OWN_LIMIT else "ignored: not valid"


def _live_lines(live: Any) -> Iterator[str]:
    """What each breaker of the route is, and how it came to be so; `--json` has all that is known."""
    if "error" in live:
        yield str(live["error"])
        return
    for one in live["breakers"]:
        left = one["next_probe_seconds"]
        probe = "" if left is None or one["is_probe_due"] else f", next probe in {left:g} s"
        yield f"breaker {one['route']}/{one['upstream']}: {one['told']}{probe}"
        if one["why"]:
            yield f"  {one['why']}"
        seen, refused = one["active"]["window"], one["rejected"]
        yield (
            f"  window: {seen['total']} calls, {seen['failure_rate']:.1%} failed, {seen['slow_rate']:.1%} slow, "
            f"{seen['consecutive_failures']} failures in a row; refused since the start: {refused}"
        )
        if one["history"]:
            last = one["history"][0]
            causes = ", ".join(cause["request_id"] for cause in last["causes"][:MAX_CAUSES])
            why = f": {last['why']}" if last["why"] else ""
            by = f", requests {causes}" if causes else ""
            yield f"  last change: {last['from']} → {last['to']} ({last['reason']}) at {last['at']}{why}{by}"
