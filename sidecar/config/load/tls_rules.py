"""The rules of `tls` that need two keys at once, and where its files are. Reads none of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sidecar.config.files import beside
from sidecar.config.load.check import Checked
from sidecar.config.problems import Report
from sidecar.config.schema.listeners import ListenerSection
from sidecar.config.schema.upstreams import UpstreamSection
from sidecar.config.yaml.nodes import Entry, MappingNode, Node, Scalar, Sequence, is_null
from sidecar.core.alpn import HTTP_2
from sidecar.core.snapshot import (
    CertificateFiles,
    ClientCertificate,
    Endpoint,
    HttpVersion,
    ListenerTls,
    UpstreamTls,
)


def check_listener(section: ListenerSection, entry: Entry, report: Report) -> None:
    """Report every broken rule of a listener's `tls`."""
    node = _tls_of(entry.value)
    tls = section.tls
    if tls is None or node is None:
        return
    if tls.certificate is not None and tls.certificates is not None:
        report.add(
            node.entries["certificates"].key.problem("either `certificate` or `certificates`, not both")
        )
    elif tls.certificate is None and not tls.certificates:
        place = node.entries.get("certificates")
        at = entry.value.entry("tls") if isinstance(entry.value, MappingNode) else None
        found = place.key if place is not None else at.key if at is not None else node
        report.add(found.problem("a listener's `tls` needs a `certificate`, with `chain` and `key`"))
    is_asked = tls.client not in (None, ClientCertificate.OFF)
    if is_asked and tls.client_ca is None:
        asked = node.entries["client"].value
        report.add(asked.problem("to check the certificates of clients, `client_ca` must say who signs them"))
    elif tls.client_ca is not None and not is_asked:
        given = node.entries["client_ca"].key
        report.add(
            given.problem("nobody is asked for a certificate: add `client: request` or `client: require`")
        )


def check_upstream(name: str, section: Checked[UpstreamSection], entry: Entry, report: Report) -> None:
    """Report every broken rule of an upstream's `tls`, and of endpoints written with `https://`."""
    value = section.value
    endpoints = section.node.get("endpoints")
    items = endpoints.items if isinstance(endpoints, Sequence) else ()
    https = [one.address.is_https for one in value.endpoints]
    if value.tls is None and any(https) and not all(https) and not section.is_bad("endpoints"):
        at = items[https.index(False)] if len(items) == len(https) else entry.key
        message = (
            f"upstream {name!r} has endpoints with and without https://: nothing falls back to clear text, so write "
            "all of them alike, or as upstreams of their own"
        )
        report.add(at.problem(message))
    is_tls = value.tls is not None or any(https)
    protocol = section.node.get("protocol")
    if value.protocol is HttpVersion.AUTO and not is_tls and protocol is not None:
        message = (
            "`auto` is what a TLS handshake agrees on: give the upstream a `tls`, or write http1 or http2"
        )
        report.add(protocol.problem(message))
    if value.tls is None:
        return
    for one, item in zip(value.endpoints, items, strict=False):
        if one.address.path is not None and value.tls.server_name is None and not value.tls.identities:
            report.add(item.problem("a UNIX socket has no name to check: add `tls: {server_name: …}`"))
    _check_alpn(section, report)


def _check_alpn(section: Checked[UpstreamSection], report: Report) -> None:
    tls, node = section.value.tls, section.node.get("tls", "alpn")
    if tls is None or tls.alpn is None or node is None:
        return
    protocol = section.value.protocol or HttpVersion.HTTP1
    if not tls.alpn:
        report.add(node.problem("no protocol to offer: leave `alpn` out to offer what `protocol` says"))
    elif protocol is HttpVersion.HTTP2 and HTTP_2 not in tls.alpn:
        report.add(node.problem(f"`protocol: http2` cannot be agreed on without {HTTP_2!r} here"))
    elif protocol is HttpVersion.HTTP1 and HTTP_2 in tls.alpn:
        report.add(
            node.problem(f"{HTTP_2!r} would be agreed on: write `protocol: auto`, or leave it out here")
        )


# Where the files are


def listener_tls(tls: ListenerTls, node: MappingNode) -> ListenerTls:
    """With paths that hold from everywhere; `node` is the listener's."""
    several = node.get("tls", "certificates")
    items = several.items if isinstance(several, Sequence) else ()
    return replace(
        tls,
        certificate=pair_of(tls.certificate, node.get("tls", "certificate")),
        certificates=tuple(
            found
            for pair, item in zip(tls.certificates, items, strict=True)
            if (found := pair_of(pair, item)) is not None
        ),
        client_ca=path_of(tls.client_ca, node.get("tls", "client_ca")),
    )


def upstream_tls(tls: UpstreamTls, node: MappingNode) -> UpstreamTls:
    """With paths that hold from everywhere; `node` is the upstream's."""
    return replace(
        tls,
        ca=path_of(tls.ca, node.get("tls", "ca")),
        certificate=pair_of(tls.certificate, node.get("tls", "certificate")),
    )


def pair_of(pair: CertificateFiles | None, node: Node | None) -> CertificateFiles | None:
    if pair is None or not isinstance(node, MappingNode):
        return pair
    return CertificateFiles(
        path_of(pair.chain, node.get("chain")) or pair.chain, path_of(pair.key, node.get("key")) or pair.key
    )


def path_of(path: str | None, node: Node | None) -> str | None:
    return beside(node) if isinstance(node, Scalar) and not is_null(node) else path


def _tls_of(node: Node) -> MappingNode | None:
    found = node.get("tls") if isinstance(node, MappingNode) else None
    return found if isinstance(found, MappingNode) else None


def clashing(urls: Iterator[tuple[Node, Endpoint]], report: Report) -> None:
    """Report a URL of a route that means another upstream than the same host and port elsewhere."""
    known: dict[str, bool] = {}
    for node, endpoint in urls:
        if known.setdefault(str(endpoint), endpoint.is_https) != endpoint.is_https:
            message = f"{endpoint} is written with http:// and with https://: name two upstreams instead"
            report.add(node.problem(message))
