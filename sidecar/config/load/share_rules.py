"""The rules of `share` and of the breakers that need it, and where its files are. Reads none of them."""

from __future__ import annotations

from dataclasses import replace

from sidecar.config.load.check import Checked
from sidecar.config.load.tls_rules import pair_of, path_of
from sidecar.config.problems import Report
from sidecar.config.schema import redis_url
from sidecar.config.schema.file import Settings
from sidecar.config.schema.routes import Route
from sidecar.config.yaml.nodes import MappingNode, is_null
from sidecar.core.snapshot import Scope, Share


def check_share(settings: Checked[Settings], report: Report) -> None:
    """Report every broken rule between the keys of `share`."""
    section, node = settings.value.share, settings.node.get("share", "redis")
    redis = None if section is None else section.redis
    if redis is None or not isinstance(node, MappingNode) or settings.is_bad("share", "redis", "url"):
        return
    place = redis_url.parse(redis.url)
    tls, password = node.entry("tls"), node.entry("password_file")
    if tls is not None and not is_null(tls.value) and not place.is_tls:
        report.add(tls.key.problem("`tls` is not used with this `url`: write rediss in place of redis there"))
    if password is not None and redis.password_file is not None and place.password is not None:
        report.add(password.key.problem("the `url` has a password, too: leave it out there"))


def check_scopes(routes: list[Checked[Route]], top: MappingNode, report: Report) -> None:
    """Report breakers that are to act as one and have nobody to meet by."""
    if isinstance(top.get("share", "redis"), MappingNode):
        return
    for route in routes:
        section, node = route.value.circuit_breaker, route.node.get("circuit_breaker", "scope")
        if section is not None and section.scope is Scope.FLEET and node is not None:
            report.add(
                node.problem(
                    "replicas act as one where they can meet: add `share: {redis: {url: redis://HOST:PORT}}` at the "
                    "top level"
                )
            )


def share(value: Share, top: MappingNode) -> Share:
    """With paths that hold from everywhere."""
    node, redis = top.get("share", "redis"), value.redis
    if redis is None or not isinstance(node, MappingNode):
        return value
    tls = redis.tls
    if tls is not None:
        pair = pair_of(tls.certificate, node.get("tls", "certificate"))
        tls = replace(tls, ca=path_of(tls.ca, node.get("tls", "ca")), certificate=pair)
    return Share(
        replace(redis, password_file=path_of(redis.password_file, node.get("password_file")), tls=tls)
    )
