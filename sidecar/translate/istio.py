"""Istio's VirtualService → routes.

What holds in Istio where nothing is said is written out where it differs here: no timeout, two retries after what has
reached nobody, no circuit breaker, redirects by 301. Istio takes the first rule that matches, the sidecar the most
specific one: `order.py` tells where that makes a difference.
"""

from __future__ import annotations

import re

from sidecar.translate import gateway_filters as shared
from sidecar.translate import istio_actions as actions
from sidecar.translate import istio_match, order
from sidecar.translate.draft import Draft, DraftRoute, Keys, Loss, sent_to, service_hosts
from sidecar.translate.durations import duration
from sidecar.translate.gateway import metadata
from sidecar.translate.source import Item

_FREE = {
    "5xx": "5xx", "gateway-error": "gateway_error", "reset": "reset", "connect-failure": "connect_failure",
    "refused-stream": "refused", "retriable-4xx": 409,
}  # fmt: skip
_STATUS = re.compile("[45][0-9]{2}")
MOST_RETRIES = 10
_MESH = "mesh"


def translate(document: Item, draft: Draft) -> None:
    """One VirtualService."""
    name, namespace = metadata(document)
    spec = document.get("spec")
    if spec is None:
        return
    written, gateways = spec.get("hosts"), spec.get("gateways")
    exported = spec.get("exportTo")
    if exported is not None:
        draft.lose(exported, "a file is one pod's own: nothing is exported", reach=False)
    hosts: list[str] = []
    for one in written.items() if written is not None else []:
        hosts += service_hosts(one.text(), namespace)
    if gateways is not None and _MESH not in [one.text() for one in gateways.items()]:
        why = f"there are no gateways here: the routes take what comes by listener {draft.listener}"
        draft.lose(gateways, why, reach=True)
    rules = spec.get("http")
    made: list[DraftRoute] = []
    for number, rule in enumerate(rules.items() if rules is not None else []):
        own = rule.get("name")
        label = f"{name}-{own.text()}" if own is not None else f"{name}-{number}"
        origin = f"{rule.place} VirtualService {f'{namespace}/' if namespace else ''}{name}, rule {number}"
        made += _rule(rule, draft, label, origin, hosts, namespace)
    dead = []
    for place, path, why, left_out in order.differences(made):
        draft.note(Loss(place, path, why, left_out is None))
        if left_out is not None:
            dead.append(left_out)
    draft.drop(dead)
    for left in document.unread():
        draft.lose(left, "not known here", reach=left.path.startswith("spec"))


def _rule(
    rule: Item, draft: Draft, label: str, origin: str, hosts: list[str], namespace: str
) -> list[DraftRoute]:
    """A route, or two where a rewrite means a prefix for some matches and whole paths for others."""
    route = draft.route(label, origin)
    written = rule.get("match")
    listed = written.items() if written is not None else []
    matches = [one for one in (istio_match.translate(item, draft) for item in listed) if one is not None]
    if listed and not matches:
        draft.lose(rule, "left out: none of its matches can be said here", reach=True)
        draft.leave()
        return []
    matches = matches or [{}]
    base: Keys = {"hosts": hosts} if hosts and "*" not in hosts else {}
    keys = actions.answered(rule, draft) or _sent(rule, draft, namespace, origin)
    policies = _policies(rule, draft, namespace, is_sent="redirect" not in keys and "respond" not in keys)
    rewrite = rule.get("rewrite")
    groups = actions.rewrites(rewrite, matches, draft)
    for left in rule.unread():
        draft.lose(left, "not known here", reach=True)
    draft.keep(route)
    made = [route]
    for number, (group, changed) in enumerate(groups):
        one = route
        if number:
            one = draft.route(f"{label}-paths", origin)
            draft.keep(one)
            made.append(one)
        found = [base | match for match in group]
        if found != [{}]:
            one.keys["match"] = found[0] if len(found) == 1 else found
        changed = changed | policies.get("rewrite", {})
        one.keys |= {**keys, **policies, **({"rewrite": changed} if changed else {})}
    return made


def _sent(rule: Item, draft: Draft, namespace: str, origin: str) -> Keys:
    listed = rule.get("route")
    shares: dict[str, Keys] = {}
    destinations = listed.items() if listed is not None else []
    for item in destinations:
        weight, name = item.get("weight"), _upstream(item, draft, namespace, origin)
        if name is None:
            continue
        share = shares.setdefault(name, {"weight": 0})
        share["weight"] += weight.whole() if weight is not None else 100 if len(destinations) == 1 else 0
        own = item.get("headers")
        if own is not None:
            share |= actions.header_changes(own, draft)[0]
    if not any(share["weight"] for share in shares.values()):
        draft.lose(rule, "a rule without a destination is answered 503 here", reach=True)
        return {"respond": {"status": 503}}
    return sent_to(shares)


def _upstream(item: Item, draft: Draft, namespace: str, origin: str) -> str | None:
    """The name of a destination's upstream."""
    to = item.get("destination")
    host = to.get("host") if to is not None else None
    if to is None or host is None:
        draft.lose(item, "a destination without a host", reach=True)
        return None
    number, subset = to.at("port", "number"), to.get("subset")
    port = number.whole() if number is not None else 80
    if number is None:
        draft.note(
            Loss(
                to.place, to.path, f"no port is given for {host.text()}: 80 is taken, set the right one", True
            )
        )
    suffix = f"-{subset.text()}" if subset is not None else ""
    where = namespace if "." not in host.text() else ""
    upstream = draft.upstream(
        host.text(), where, port, f"{to.place} destination {host.text()}", suffix=suffix
    )
    if subset is not None:
        why = (
            f"subset {subset.text()} is chosen by labels of pods, which a sidecar does not see: upstream "
            f"{upstream.name} has all pods; give it the Service of the subset"
        )
        draft.note(Loss(subset.place, subset.path, why, True))
    upstream.keys.setdefault("ejection", {"mode": "off"})
    return upstream.name


def _policies(rule: Item, draft: Draft, namespace: str, *, is_sent: bool) -> Keys:
    """Of the whole rule; what Istio does where nothing is said is written out."""
    timeout, retries = rule.get("timeout"), rule.get("retries")
    keys: Keys = {}
    changed, host = (
        actions.header_changes(headers, draft) if (headers := rule.get("headers")) is not None else ({}, None)
    )
    keys |= changed
    if host is not None:
        keys["rewrite"] = {"host": host}
    policy = rule.get("corsPolicy")
    if policy is not None:
        keys |= actions.cors(policy, draft)
    _mirrors(rule, draft, namespace, keys)
    fault = rule.get("fault")
    if fault is not None:
        draft.lose(fault, "no faults are made here", reach=False)
    if not is_sent:
        return keys
    keys["timeouts"] = {"request": duration(timeout) if timeout is not None else "off"}
    keys["retry"] = _retries(retries, draft, keys) if retries is not None else {"attempts": 2}
    keys["circuit_breaker"] = {"mode": "metrics_only"}
    return keys


def _mirrors(rule: Item, draft: Draft, namespace: str, keys: Keys) -> None:
    one, listed = rule.get("mirror"), rule.get("mirrors")
    share = rule.get("mirrorPercentage", "mirrorPercent", "mirror_percent")
    found = [one] if one is not None else listed.items() if listed is not None else []
    for number, item in enumerate(found):
        to = item if item.get("destination") is None else item.get("destination")
        host = to.get("host") if to is not None else None
        own = item.get("percentage") or share
        value = own.get("value") if own is not None and own.is_mapping else own
        if number or to is None or host is None:
            draft.lose(item, "one mirror at most, of one host", reach=False)
            continue
        port = to.at("port", "number")
        upstream = draft.upstream(
            host.text(), namespace, port.whole() if port is not None else 80, f"{item.place} mirror"
        )
        shared.mirror(
            keys, draft, item, upstream.name, f"{value.number():g}%" if value is not None else "100%"
        )


def _retries(retries: Item, draft: Draft, keys: Keys) -> Keys:
    attempts, each, conditions = retries.get("attempts"), retries.get("perTryTimeout"), retries.get("retryOn")
    backoff = retries.get("backoff")
    count = attempts.whole() if attempts is not None else 2
    if count > MOST_RETRIES:
        draft.note(Loss(retries.place, retries.path, f"at most {MOST_RETRIES} retries here", False))
    found: Keys = {"attempts": min(count, MOST_RETRIES)}
    if each is not None:
        keys["timeouts"]["attempt"] = duration(each)
    if backoff is not None:
        found["backoff"] = {"base": duration(backoff), "max": duration(backoff)}
    if conditions is None:
        return found
    items: list[object] = []
    for word in filter(None, (part.strip() for part in conditions.text().split(","))):
        if word in _FREE:
            items.append(_FREE[word])
        elif _STATUS.fullmatch(word):
            items.append(int(word))
        else:
            draft.note(
                Loss(conditions.place, conditions.path, f"{word} is no reason to try again here", False)
            )
    if any(item not in ("connect_failure", "refused") for item in items):
        why = "Istio tries POST and the like again too; here only with `retry: {non_idempotent: true}`"
        draft.note(Loss(conditions.place, conditions.path, why, False))
    return found | ({"on": items} if items else {"attempts": 0})
