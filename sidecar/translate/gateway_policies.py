"""Gateway API's policies of Services, after all routes are known: BackendTLSPolicy, XBackendTrafficPolicy."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config.schema.units import digits
from sidecar.translate.draft import Draft, DraftUpstream, Keys
from sidecar.translate.durations import seconds
from sidecar.translate.gateway import metadata
from sidecar.translate.source import Item


def translate_tls(document: Item, draft: Draft) -> None:
    """BackendTLSPolicy (GEP-1897)."""
    _, namespace = metadata(document)
    validation = document.at("spec", "validation")
    tls: Keys = {}
    if validation is not None:
        name, known = validation.get("hostname"), validation.get("wellKnownCACertificates")
        if name is not None:
            tls["server_name"] = name.text()
        if known is not None and known.text() != "System":
            draft.lose(known, "of the well-known CAs there are those of the system alone", reach=True)
        _authorities(validation, draft, tls)
        listed = validation.get("subjectAltNames")
        for one in listed.items() if listed is not None else []:
            kind, uri, host = one.get("type"), one.get("uri"), one.get("hostname")
            value = uri if kind is not None and kind.text() == "URI" else host
            if value is not None:
                tls.setdefault("identities", []).append(value.text())
    for upstream in _targets(document, draft, namespace):
        upstream.keys["tls"] = dict(tls)
    _rest(document, draft)


def _authorities(validation: Item, draft: Draft, tls: Keys) -> None:
    listed = validation.get("caCertificateRefs")
    refs = listed.items() if listed is not None else []
    for number, ref in enumerate(refs):
        kind, name = ref.get("kind"), ref.get("name")
        ref.get("group")
        if number or name is None:
            draft.lose(ref, "one file holds the CAs of an upstream: put this one into it too", reach=True)
            continue
        tls["ca"] = f"{name.text()}/ca.crt"
        what = kind.text() if kind is not None else "ConfigMap"
        draft.lose(ref, f"mount {what} {name.text()} beside the file, as {tls['ca']}", reach=False)


def translate_traffic(document: Item, draft: Draft) -> None:
    """XBackendTrafficPolicy (GEP-1731, GEP-3388): a budget for the retries of the routes to a Service."""
    _, namespace = metadata(document)
    spec = document.get("spec")
    constraint = spec.get("retryConstraint") if spec is not None else None
    budget: Keys = {}
    if constraint is not None:
        share, least = constraint.at("budget", "percent"), constraint.get("minRetryRate")
        interval = constraint.at("budget", "interval")
        if share is not None:
            budget["ratio"] = f"{digits(share.number())}%"
        if interval is not None:
            draft.lose(interval, "a budget looks at the last second here", reach=False)
        if least is not None:
            count, per = least.get("count"), least.get("interval")
            over = seconds(per) if per is not None else 1.0
            budget["min_per_second"] = max(
                round((count.number() if count is not None else 10.0) / (over or 1.0)), 0
            )
    names = {upstream.name for upstream in _targets(document, draft, namespace)}
    for route in draft.routes:
        if (
            budget
            and "retry" in route.keys
            and names & {route.keys.get("upstream"), *route.keys.get("weights", {})}
        ):
            route.keys["retry"]["budget"] = dict(budget)
    _rest(document, draft)


def _targets(document: Item, draft: Draft, namespace: str) -> Iterator[DraftUpstream]:
    spec = document.get("spec")
    listed = spec.get("targetRefs") if spec is not None else None
    for ref in listed.items() if listed is not None else []:
        kind, name, section = ref.get("kind"), ref.get("name"), ref.get("sectionName")
        ref.get("group")
        if name is None or (kind is not None and kind.text() != "Service"):
            draft.lose(ref, "only Services have policies here", reach=True)
            continue
        found = list(draft.upstreams_of(name.text(), namespace))
        if section is not None:
            draft.lose(
                section, "ports have no names here: all of the Service's ports have the policy", reach=True
            )
        if not found:
            draft.lose(ref, f"no route of these files leads to Service {name.text()}", reach=False)
        yield from found


def _rest(document: Item, draft: Draft) -> None:
    for left in document.unread():
        draft.lose(left, "not known here", reach=left.path.startswith("spec.validation"))
