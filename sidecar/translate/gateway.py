"""Gateway API: HTTPRoute and GRPCRoute → routes.

What is meant by each field: https://gateway-api.sigs.k8s.io/reference/spec/. A rule becomes a route; a match that
cannot be said here is left out, since a wider one would take requests that were never meant for it.
"""

from __future__ import annotations

from sidecar.translate import gateway_filters as filters
from sidecar.translate.draft import Draft, DraftRoute, Keys, sent_to, service_hosts
from sidecar.translate.durations import duration
from sidecar.translate.source import Item

MOST_RETRIES = 10


def translate(document: Item, draft: Draft) -> None:
    """One HTTPRoute or GRPCRoute."""
    kind_item = document.get("kind")
    kind = kind_item.text() if kind_item is not None else ""
    name, namespace = metadata(document)
    hosts, port = _parents(document, draft, namespace)
    rules = document.at("spec", "rules")
    listed = rules.items() if rules is not None else []
    for number, rule in enumerate(listed):
        own = rule.get("name")
        label = (
            f"{name}-{own.text()}" if own is not None else name if len(listed) == 1 else f"{name}-{number}"
        )
        where = f"{rule.place} {kind} {f'{namespace}/' if namespace else ''}{name}, rule {number}"
        _rule(rule, draft, draft.route(label, where), hosts, port, namespace, is_grpc=kind == "GRPCRoute")
    for left in document.unread():
        draft.lose(left, "not known here", reach=left.path.startswith("spec"))


def metadata(document: Item) -> tuple[str, str]:
    """Name and namespace; the rest of it, and the status, say nothing about requests."""
    for key in ("apiVersion", "kind", "status"):
        item = document.get(key)
        if item is not None:
            item.is_taken = True
            if key == "status":
                item.take()
    top = document.get("metadata")
    if top is None:
        return "unnamed", ""
    name, namespace = top.get("name"), top.get("namespace")
    found = name.text() if name is not None else "unnamed", namespace.text() if namespace is not None else ""
    top.take()
    return found


def _parents(document: Item, draft: Draft, namespace: str) -> tuple[list[str], int | None]:
    """The hosts that are meant: those of the route, or of the Services whose callers it is for (GAMMA)."""
    spec = document.get("spec")
    names = spec.get("hostnames") if spec is not None else None
    hosts = [one.text() for one in names.items()] if names is not None else []
    of_services: list[str] = []
    port: int | None = None
    parents = spec.get("parentRefs") if spec is not None else None
    for parent in parents.items() if parents is not None else []:
        kind, name = parent.get("kind"), parent.get("name")
        parent.get("group")
        space = parent.get("namespace")
        if kind is not None and kind.text() == "Service" and name is not None:
            of_services += service_hosts(name.text(), space.text() if space is not None else namespace)
            number = parent.get("port")
            port = number.whole() if number is not None else port
        for key in ("sectionName", "port"):
            item = parent.get(key)
            if item is not None and not of_services:
                draft.lose(
                    item,
                    f"there are no Gateways here: the routes take all of listener {draft.listener}",
                    reach=True,
                )
    return hosts or of_services, port


def _rule(
    rule: Item,
    draft: Draft,
    route: DraftRoute,
    hosts: list[str],
    port: int | None,
    namespace: str,
    *,
    is_grpc: bool,
) -> None:
    matches = _matches(rule, draft, hosts, port, is_grpc=is_grpc)
    if matches is None:
        draft.lose(rule, "left out: none of its matches can be said here", reach=True)
        draft.leave()
        return
    if matches != [{}]:
        route.keys["match"] = matches[0] if len(matches) == 1 else matches
    listed = rule.get("filters")
    changed = filters.translate(listed.items() if listed is not None else [], draft, namespace)
    if changed.pop(filters.REFUSED, False):
        changed = {"respond": {"status": 500}}
    is_answered = not {"redirect", "respond"}.isdisjoint(changed)
    destination = _destination(rule, draft, namespace, route.origin, is_grpc=is_grpc)
    needs_prefix = any("prefix" in changed.get(key, {}) for key in ("redirect", "rewrite"))
    if needs_prefix:
        _ask_for_prefix(route, rule, draft, changed)
    route.keys |= changed if is_answered else destination | changed
    route.keys |= _limits(rule, draft)
    sticky = rule.get("sessionPersistence")
    if sticky is not None:
        draft.lose(sticky, "a client is not kept at one endpoint here", reach=False)
    for left in rule.unread():
        draft.lose(left, "not known here", reach=True)
    draft.keep(route)


def _ask_for_prefix(route: DraftRoute, rule: Item, draft: Draft, changed: Keys) -> None:
    """A rule without a path matches the prefix `/`, and is written so where a prefix is replaced."""
    matches = route.keys.get("match", {})
    for match in matches if isinstance(matches, list) else [matches]:
        match.setdefault("path", {"prefix": "/"})
        if "prefix" not in match["path"]:
            for key in ("redirect", "rewrite"):
                changed.get(key, {}).pop("prefix", None)
                if changed.get(key) == {}:
                    del changed[key]
            draft.lose(
                rule, "ReplacePrefixMatch beside a match that is no PathPrefix is not carried", reach=True
            )
            return
    route.keys["match"] = matches


def _matches(
    rule: Item, draft: Draft, hosts: list[str], port: int | None, *, is_grpc: bool
) -> list[Keys] | None:
    """None where nothing is left that could be matched."""
    base: Keys = {"hosts": hosts} if hosts else {}
    if port is not None:
        base["port"] = port
    written = rule.get("matches")
    listed = written.items() if written is not None else []
    if not listed:
        return [base | ({"grpc": {}} if is_grpc else {})]
    found = []
    for match in listed:
        conditions = _grpc_match(match, draft) if is_grpc else _http_match(match, draft)
        for left in match.unread():
            draft.lose(left, "this match is left out: the condition is not known here", reach=True)
            conditions = None
        if conditions is not None:
            found.append(base | conditions)
    return found or None


def _http_match(match: Item, draft: Draft) -> Keys | None:
    conditions: Keys = {}
    path = match.get("path")
    if path is not None:
        kind, value = path.get("type"), path.get("value")
        words = {"PathPrefix": "prefix", "Exact": "exact", "RegularExpression": "regex"}
        word = words.get(kind.text() if kind is not None else "PathPrefix")
        if word is None:
            draft.lose(path, "this match is left out: no such type of a path here", reach=True)
            return None
        text = value.text() if value is not None else "/"
        if (word, text) != ("prefix", "/"):
            conditions["path"] = {word: text}
    method = match.get("method")
    if method is not None:
        conditions["methods"] = [method.text()]
    for key, ours in (("headers", "headers"), ("queryParams", "query")):
        listed = match.get(key)
        if listed is not None and not _values(listed, conditions, ours, draft):
            return None
    return conditions


def _grpc_match(match: Item, draft: Draft) -> Keys | None:
    """By `grpc`, or by the path that a call has where `grpc` cannot say it (grpc/doc/PROTOCOL-HTTP2.md)."""
    conditions: Keys = {"grpc": {}}
    method = match.get("method")
    if method is not None:
        kind, service, name = method.get("type"), method.get("service"), method.get("method")
        is_regex = kind is not None and kind.text() == "RegularExpression"
        parts = [None if one is None else one.text() for one in (service, name)]
        if not is_regex and parts[0] is not None:
            conditions["grpc"] = {"service": parts[0]} | ({} if parts[1] is None else {"method": parts[1]})
        elif parts != [None, None]:
            quoted = ["[^/]+" if part is None else f"(?:{part})" if is_regex else part for part in parts]
            conditions = {
                "path": {"regex": f"/{'/'.join(map(str, quoted))}"},
                "methods": ["POST"],
                "headers": {"content-type": {"prefix": "application/grpc"}},
            }
    listed = match.get("headers")
    if listed is not None and not _values(listed, conditions, "headers", draft):
        return None
    return conditions


def _values(listed: Item, conditions: Keys, key: str, draft: Draft) -> bool:
    """Conditions on fields or parameters; of one name the first counts. False where one cannot be said."""
    found: Keys = conditions.setdefault(key, {})
    for one in listed.items():
        kind, name, value = one.get("type"), one.get("name"), one.get("value")
        word = kind.text() if kind is not None else "Exact"
        if name is None or value is None or word not in ("Exact", "RegularExpression"):
            draft.lose(one, f"this match is left out: no condition of type {word} here", reach=True)
            return False
        spelt = name.text().lower() if key == "headers" else name.text()
        found.setdefault(spelt, value.text() if word == "Exact" else {"regex": value.text()})
    return True


def _destination(rule: Item, draft: Draft, namespace: str, origin: str, *, is_grpc: bool) -> Keys:
    """Without any usable backend, Gateway API answers 500."""
    listed = rule.get("backendRefs")
    shares: dict[str, Keys] = {}
    for ref in listed.items() if listed is not None else []:
        kind, name, number = ref.get("kind"), ref.get("name"), ref.get("port")
        space, weight, group = ref.get("namespace"), ref.get("weight"), ref.get("group")
        is_service = kind is None or kind.text() == "Service"
        if (
            not is_service
            or name is None
            or number is None
            or (group is not None and group.text() not in ("", "core"))
        ):
            draft.lose(ref, "a backend that is no Service with a port has no endpoint here", reach=True)
            continue
        where = space.text() if space is not None else namespace
        upstream = draft.upstream(name.text(), where, number.whole(), f"{ref.place} Service {name.text()}")
        if is_grpc:
            upstream.keys["protocol"] = "http2"
        share = shares.setdefault(upstream.name, {"weight": 0})
        share["weight"] += weight.whole() if weight is not None else 1
        own = ref.get("filters")
        if own is not None:
            changed = filters.translate(own.items(), draft, namespace, allowed=filters.OF_A_BACKEND)
            if changed.pop(filters.REFUSED, False):
                del shares[upstream.name]
                continue
            share |= changed
    if not any(share["weight"] for share in shares.values()):
        return {"respond": {"status": 500}}
    return sent_to(shares)


def _limits(rule: Item, draft: Draft) -> Keys:
    """`timeouts` and `retry` (GEP-1742, GEP-1731)."""
    keys: Keys = {}
    times = rule.get("timeouts")
    if times is not None:
        for key, ours in (("request", "request"), ("backendRequest", "attempt")):
            item = times.get(key)
            if item is not None:
                keys.setdefault("timeouts", {})[ours] = duration(item)
    retry = rule.get("retry")
    if retry is None:
        return keys
    codes, attempts, backoff = retry.get("codes"), retry.get("attempts"), retry.get("backoff")
    items: list[object] = ["connect_failure", "refused"]
    for code in codes.items() if codes is not None else []:
        number = code.whole()
        if 400 <= number <= 599:
            items.append(number)
        else:
            draft.lose(code, "only statuses from 400 to 599 are tried again here", reach=False)
    count = attempts.whole() if attempts is not None else 1
    if count > MOST_RETRIES:
        draft.lose(retry, f"at most {MOST_RETRIES} retries here", reach=False)
    keys["retry"] = {"attempts": min(count, MOST_RETRIES), "on": items}
    if backoff is not None:
        base = duration(backoff)
        keys["retry"]["backoff"] = {"base": base, "max": base}
    return keys
