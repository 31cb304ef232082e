"""What is wrong with the files that a configuration's TLS needs, and what is asked of an upstream by TLS.

Files are looked at as `run` would: a key that does not fit, a chain in disorder, dates. One that is not there is told
as a warning alone, since a configuration is often checked where the secrets are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from typing import Final

from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import CertificateFiles, Endpoint, Snapshot, Source, Upstream
from sidecar.transport.tls.client import context_key
from sidecar.transport.tls.files import (
    MissingFile,
    OwnCertificate,
    TlsFileError,
    client_context,
    load_pair,
    server_context,
    trust,
)

SOON_SECONDS: Final = 14 * 86400.0
"""Before its end a certificate is warned of."""
_DAY_SECONDS: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about one key."""

    key: str
    text: str
    is_warning: bool = False

    def __str__(self) -> str:
        return f"{'warning: ' if self.is_warning else ''}{self.key}: {self.text}"


def findings(snapshot: Snapshot) -> Iterator[Finding]:
    """Of all listeners and upstreams, for each key that names a file; no file is looked at twice."""
    looked = _Looked()
    for name, listener in snapshot.listeners.items():
        tls, key = listener.tls, f"listeners.{name}.tls"
        if tls is None:
            continue
        for number, pair in enumerate(tls.pairs):
            which = "certificate" if tls.certificate is not None else f"certificates[{number}]"
            yield from looked.at_pair(f"{key}.{which}", pair, is_server=True)
        if tls.client_ca is not None:
            yield from looked.at_ca(f"{key}.client_ca", tls.client_ca)
    for upstream in snapshot.upstreams.values():
        if upstream.tls is None:
            continue
        key = f"upstreams.{upstream.name}.tls"
        yield from looked.at_ca(f"{key}.ca", upstream.tls.ca)
        if upstream.tls.certificate is not None:
            yield from looked.at_pair(f"{key}.certificate", upstream.tls.certificate, is_server=False)


class _Looked:
    """What was found, so that a thousand upstreams load the system's CAs once."""

    def __init__(self) -> None:
        self._found: dict[Hashable, list[tuple[str, bool]]] = {}

    def at_ca(self, key: str, file: str | None) -> Iterator[Finding]:
        if file not in self._found:
            self._found[file] = _tried(lambda: trust(client_context(), file))
        return (Finding(key, text, is_warning) for text, is_warning in self._found[file])

    def at_pair(self, key: str, pair: CertificateFiles, *, is_server: bool) -> Iterator[Finding]:
        which = pair, is_server
        if which not in self._found:
            self._found[which] = _of_pair(pair, is_server=is_server)
        return (Finding(key, text, is_warning) for text, is_warning in self._found[which])


def _of_pair(pair: CertificateFiles, *, is_server: bool) -> list[tuple[str, bool]]:
    context = server_context() if is_server else client_context()
    loaded: list[OwnCertificate] = []
    found = _tried(lambda: loaded.append(load_pair(context, pair, is_server=is_server)))
    for own in loaded:
        if own.is_key_open:
            found.append((f"{pair.key}: every user of this system may read the key: chmod o= it", True))
        left = own.expires - time.time()
        if left < SOON_SECONDS:
            found.append((f"{pair.chain}: it expires in {left / _DAY_SECONDS:.1f} days", True))
    return found


def _tried(look: Callable[[], None]) -> list[tuple[str, bool]]:
    """What is wrong, and whether that is a warning alone."""
    try:
        look()
    except MissingFile as error:
        return [(f"{error}, which `run` would not bear", True)]
    except TlsFileError as error:
        return [(str(error), False)]
    return []


def asked_of(upstream: Upstream) -> str:
    """What an upstream with `tls` has to prove, what it is shown, and which HTTP is spoken; for people."""
    tls = upstream.tls
    assert tls is not None
    if tls.identities:
        who = f"one of {', '.join(tls.identities)}"
    else:
        names = dict.fromkeys(tls.server_name or _name(endpoint) for endpoint in upstream.endpoints)
        who = " or ".join(names)
    shown = (
        "no certificate is shown"
        if tls.certificate is None
        else f"{tls.certificate.chain} is shown if asked for"
    )
    return (
        f"by TLS: its certificate must be for {who}, and signed by {tls.ca or 'a CA that the system trusts'}; "
        f"{shown}; {' or '.join(context_key(upstream).alpn)} by ALPN"
    )


def _name(endpoint: Endpoint) -> str:
    return "the address of each endpoint" if endpoint.source is Source.FILE else endpoint.domain
