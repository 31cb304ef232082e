"""Istio's DestinationRule → what upstreams say, after all routes are known.

https://istio.io/latest/docs/reference/config/networking/destination-rule/. Without `outlierDetection` Istio leaves no
endpoint out, which `istio.py` has written already; with it, its own numbers hold where nothing is said.
"""

from __future__ import annotations

from sidecar.core.snapshot import EjectionPolicy
from sidecar.translate.draft import Draft, DraftUpstream, Keys, full_name
from sidecar.translate.durations import duration, seconds
from sidecar.translate.gateway import metadata
from sidecar.translate.source import Item

_BALANCING = {"ROUND_ROBIN": "round_robin", "LEAST_REQUEST": "least_request", "LEAST_CONN": "least_request"}


def translate(document: Item, draft: Draft) -> None:
    """One DestinationRule."""
    _, namespace = metadata(document)
    spec = document.get("spec")
    host = spec.get("host") if spec is not None else None
    if spec is None or host is None:
        return
    spec.get("exportTo")
    found = [one for one in draft.upstreams.values() if _is_meant(host.text(), namespace, one)]
    if not found:
        draft.lose(spec, f"no route of these files leads to {host.text()}", reach=False)
    policy = spec.get("trafficPolicy")
    if policy is not None:
        for upstream in found:
            _apply(policy, upstream, draft)
        ports = policy.get("portLevelSettings")
        for one in ports.items() if ports is not None else []:
            number = one.at("port", "number")
            of_port = [
                upstream for upstream in found if number is not None and upstream.port == number.number()
            ]
            for upstream in of_port:
                _apply(one, upstream, draft)
            if not of_port and found:
                draft.lose(one, "no route of these files leads to this port", reach=False)
    _subsets(spec, found, draft)
    for left in document.unread():
        draft.lose(left, "not known here", reach=False)


def _is_meant(host: str, namespace: str, upstream: DraftUpstream) -> bool:
    wanted = full_name(host, namespace)
    name = full_name(upstream.host, upstream.namespace or namespace)
    return name == wanted or (wanted.startswith("*.") and name.endswith(wanted[1:]))


def _subsets(spec: Item, found: list[DraftUpstream], draft: Draft) -> None:
    listed = spec.get("subsets")
    for subset in listed.items() if listed is not None else []:
        name, policy, labels = subset.get("name"), subset.get("trafficPolicy"), subset.get("labels")
        if labels is not None:
            labels.take()  # what they mean was told where the subset is used
        for upstream in found:
            if name is not None and policy is not None and upstream.name.endswith(f"-{name.text()}"):
                _apply(policy, upstream, draft)


def _apply(policy: Item, upstream: DraftUpstream, draft: Draft) -> None:
    pool, outliers, balancer, tls = (
        policy.get(key) for key in ("connectionPool", "outlierDetection", "loadBalancer", "tls")
    )
    if pool is not None:
        _pool(pool, upstream, draft)
    if outliers is not None:
        upstream.keys["ejection"] = _ejection(outliers, draft)
    if balancer is not None:
        simple = balancer.get("simple")
        word = simple.text() if simple is not None else ""
        if word in _BALANCING:
            upstream.keys["load_balancing"] = {"policy": _BALANCING[word]}
        elif simple is not None and word != "UNSPECIFIED":
            draft.lose(simple, f"{word}: not one of the policies that there are here", reach=False)
    if tls is not None:
        _tls(tls, upstream, draft)


def _pool(pool: Item, upstream: DraftUpstream, draft: Draft) -> None:
    limits: Keys = upstream.keys.setdefault("limits", {})
    times: Keys = upstream.keys.setdefault("timeouts", {})
    for path, key in (
        (("tcp", "maxConnections"), "max_connections"),
        (("http", "http1MaxPendingRequests"), "max_pending"),
        (("http", "http2MaxRequests"), "max_requests"),
    ):
        item = pool.at(*path)
        if item is not None and item.number() > 0:
            limits[key] = item.whole()
    for path, key in ((("tcp", "connectTimeout"), "connect"), (("http", "idleTimeout"), "idle")):
        item = pool.at(*path)
        if item is not None and duration(item) != "off":
            times[key] = duration(item)
    upgrade = pool.at("http", "h2UpgradePolicy")
    if upgrade is not None and upgrade.text() == "UPGRADE":
        upstream.keys["protocol"] = "http2"
    for key in ("limits", "timeouts"):
        if not upstream.keys[key]:
            del upstream.keys[key]
    for left in pool.unread():
        draft.lose(left, "there is no such limit here", reach=False)


def _ejection(item: Item, draft: Draft) -> Keys:
    """Istio's defaults: five in a row, each 10 s, 30 s long, a tenth at most; no rate."""
    row = item.get("consecutive5xxErrors", "consecutiveErrors")
    gateway = item.get("consecutiveGatewayErrors")
    if gateway is not None and row is None:
        why = "failures in a row are what `failure_on` of the route names: 502 to 504 alone are not counted apart"
        draft.lose(gateway, why, reach=False)
        row = gateway
    found: Keys = {
        "consecutive_failures": row.whole() if row is not None else 5,
        "failure_rate_threshold": "100%",
    }
    for key, ours in (("interval", "interval"), ("baseEjectionTime", "base")):
        value = item.get(key)
        if value is not None:
            found[ours] = duration(value)
    base = item.get("baseEjectionTime")
    if base is not None and seconds(base) > EjectionPolicy().max_seconds:
        found["max"] = duration(base)  # Envoy: the longer one of 300 s and this
    most, least = item.get("maxEjectionPercent"), item.get("minHealthPercent")
    found["max_ejected"] = f"{most.number():g}%" if most is not None else "10%"
    if least is not None:
        found["panic"] = f"{least.number():g}%"
    return found


def _tls(item: Item, upstream: DraftUpstream, draft: Draft) -> None:
    mode = item.get("mode")
    word = mode.text() if mode is not None else "SIMPLE"
    if word == "DISABLE":
        return
    if word not in ("SIMPLE", "MUTUAL"):
        draft.lose(
            item, f"{word}: the mesh's own certificates are not here; clear text is spoken", reach=True
        )
        return
    tls: Keys = {}
    for key, ours in (("sni", "server_name"), ("caCertificates", "ca")):
        value = item.get(key)
        if value is not None:
            tls[ours] = value.text()
    chain, secret = item.get("clientCertificate"), item.get("privateKey")
    if chain is not None and secret is not None:
        tls["certificate"] = {"chain": chain.text(), "key": secret.text()}
    names = item.get("subjectAltNames")
    if names is not None:
        tls["identities"] = [one.text() for one in names.items()]
    unchecked = item.get("insecureSkipVerify")
    if unchecked is not None and unchecked.flag():
        draft.lose(unchecked, "certificates are always checked here", reach=True)
    upstream.keys["tls"] = tls
