"""Which certificate a listener shows for a name, and whether it has one for each host that its routes take."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sidecar.cli.tls_files import Finding
from sidecar.core.hosts import normal_host, pattern_port
from sidecar.core.snapshot import ClientCertificate, Listener, ListenerTls, Snapshot
from sidecar.transport.tls.files import TlsFileError
from sidecar.transport.tls.names import covers, told_names
from sidecar.transport.tls.served import ServedCertificates, load_served


def uncovered_hosts(snapshot: Snapshot) -> Iterator[Finding]:
    """A warning for each host that a route takes and no certificate of its listener is for. What cannot be loaded is
    told elsewhere."""
    for name, listener in snapshot.listeners.items():
        served = _loaded(listener)
        if served is None:
            continue
        names = [pair.dns_names for pair in served.pairs]
        if not all(names):  # one without DNS names is for every host
            continue
        known = {one for own in names for one in own}
        for route in snapshot.routes:
            if route.listener != name:
                continue
            hosts = (pattern_port(host)[0] for match in route.matches for host in match.hosts)
            for host in dict.fromkeys(hosts):
                if host != "*" and not _is_covered(host, known):
                    text = f"no certificate is for {host}, which route {route.name} takes: clients refuse to connect"
                    yield Finding(f"listeners.{name}.tls", text, is_warning=True)


def told_of_connection(listener: Listener, host: bytes) -> Iterator[str]:
    """What a client meets that connects for this host, for people; nothing in clear text."""
    tls = listener.tls
    if tls is None:
        return
    try:
        served = load_served(listener)
    except TlsFileError as error:
        yield f"TLS, but its files cannot be used: {error}"
        return
    own = served.pairs[served.index_of(normal_host(host).decode("ascii", "replace"))].own
    until = time.strftime("%Y-%m-%d", time.gmtime(own.expires))
    yield f"certificate {own.files.chain}, for {told_names(own.certificate)}, good until {until}"
    yield f"TLS {tls.minimum_version.value} at least, {' or '.join(sorted(served.offered))} by ALPN, {_asked(tls)}"


def _asked(tls: ListenerTls) -> str:
    match tls.client:
        case ClientCertificate.OFF:
            return "no certificate of the client is asked for"
        case ClientCertificate.REQUEST:
            return f"the client may show a certificate, which has to be signed by {tls.client_ca}"
        case ClientCertificate.REQUIRE:
            return f"the client has to show a certificate that is signed by {tls.client_ca}"


def _loaded(listener: Listener) -> ServedCertificates | None:
    try:
        return load_served(listener) if listener.tls is not None else None
    except TlsFileError:
        return None


def _is_covered(host: str, known: set[str]) -> bool:
    """A pattern of a route stands for more labels than that of a certificate: it is covered by one that is alike."""
    return host in known or (not host.startswith("*.") and any(covers(pattern, host) for pattern in known))
