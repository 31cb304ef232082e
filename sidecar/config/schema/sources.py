"""How an upstream names who lists its endpoints: DNS SRV, a file, Kubernetes."""

from __future__ import annotations

import re

from sidecar.config.schema import units
from sidecar.core.snapshot import Endpoint, Source

_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_KUBERNETES = re.compile(f"({_LABEL})\\.({_LABEL}):({_LABEL})")
_SRV = re.compile(r"(_[a-z0-9-]{1,62}\.){2}(?=.)")
NAMES_FOR = {
    Source.SRV: "srv://_http._tcp.payments.shop.svc.cluster.local",
    Source.FILE: "file:///etc/endpoints/payments.yaml",
    Source.KUBERNETES: "kubernetes://payments.shop:http",
}
"""How each source is written."""
_SCHEMES = {f"{source.value}://": source for source in NAMES_FOR}


def parse_entry(value: object) -> Endpoint:
    """One entry of `endpoints`: an address as of `units.parse_endpoint`, or a source."""
    if isinstance(value, str):
        for scheme, source in _SCHEMES.items():
            if value.startswith(scheme):
                return Endpoint(_named(source, value.removeprefix(scheme), value), 0, source=source)
    return units.parse_endpoint(value)


def _named(source: Source, text: str, whole: str) -> str:
    if source is Source.FILE:
        if not text.startswith("/") or "\0" in text or len(text) < 2:
            raise ValueError(f"{whole!r} needs an absolute path, as in {NAMES_FOR[source]}")
        return text
    text = text.lower().removesuffix(".")
    if source is Source.SRV:
        found = _SRV.match(text)
        if found is None:
            raise ValueError(f"{whole!r} is no name of an SRV record: write it as in {NAMES_FOR[source]}")
        units.parse_host(text[found.end() :])
        return text
    if not _KUBERNETES.fullmatch(text):
        raise ValueError(
            f"{whole!r} needs the Service, its namespace and the name or number of a port, as in {NAMES_FOR[source]}"
        )
    port = text.rpartition(":")[2]
    if port.isdecimal() and not 1 <= int(port) <= 65535:  # the name of a port has a letter (RFC 6335)
        raise ValueError(f"port {port!r} in {whole!r} is not a number from 1 to 65535")
    return text
