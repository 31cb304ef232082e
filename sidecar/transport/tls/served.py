"""What one listener shows its clients: a context for each certificate, and which name gets which.

The contexts differ in nothing but the certificate, and each has ticket keys of its own: so a session is resumed for
the certificate alone that it was made for, and none outlives its set. A set never changes; a new one takes its place.
`load` reads files, so it is for a thread.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Sequence
from typing import Final

from sidecar.core.alpn import OFFERED
from sidecar.core.client_tls import ShownCertificate
from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import CertificateFiles, ClientCertificate, Listener, ListenerTls
from sidecar.transport.tls.files import OwnCertificate, load_pair, server_context, trust
from sidecar.transport.tls.names import of_kind, subject
from sidecar.transport.tls.transport import TlsTransport, Wrap

_RULES: Final = {
    ClientCertificate.OFF: ssl.CERT_NONE,
    ClientCertificate.REQUEST: ssl.CERT_OPTIONAL,
    ClientCertificate.REQUIRE: ssl.CERT_REQUIRED,
}
MAX_NAMES: Final = 32
"""Of each kind that upstreams are told of a client's certificate: an authority may write thousands into one."""


@dataclass(frozen=True, slots=True)
class ServedPair:
    """One certificate, ready to be shown."""

    own: OwnCertificate
    context: ssl.SSLContext

    @property
    def dns_names(self) -> tuple[str, ...]:
        return tuple(name.lower().rstrip(".") for name in of_kind(self.own.certificate, "DNS"))

    @property
    def uris(self) -> tuple[str, ...]:
        return tuple(of_kind(self.own.certificate, "URI"))


class NameTable:
    """Which certificate of several a name gets."""

    __slots__ = ("_by_name", "_by_suffix", "_rest")

    def __init__(self, names: Sequence[Sequence[str]]) -> None:
        """`names`: of each certificate its DNS names, in lower case."""
        self._by_name: dict[str, int] = {}
        self._by_suffix: dict[str, int] = {}
        for index, own in enumerate(names):
            for name in own:
                if name.startswith("*."):
                    self._by_suffix.setdefault(name[1:], index)
                else:
                    self._by_name.setdefault(name, index)
        self._rest = next((index for index, own in enumerate(names) if not own), 0)
        """A certificate without DNS names is for every host; else the first is shown, as a server must show one."""

    def index_of(self, name: str) -> int:
        """`name` in lower case, without a dot at its end; empty where a client asks for none."""
        found = self._by_name.get(name)
        if found is None:  # a wildcard stands for one label (RFC 9525 6.3)
            _, dot, rest = name.partition(".")
            found = self._by_suffix.get(dot + rest)
        return self._rest if found is None else found


class ServedCertificates:
    """All certificates of a listener, as they were loaded together."""

    __slots__ = ("_names", "digest", "offered", "pairs", "rule")

    def __init__(
        self, pairs: Sequence[ServedPair], rule: ClientCertificate, offered: Sequence[str], digest: str = ""
    ) -> None:
        self.pairs = tuple(pairs)
        self.rule = rule
        """What is asked of clients."""
        self.offered = frozenset(offered)
        """By ALPN."""
        self.digest = digest
        """Of the files' content before they were loaded."""
        self._names = NameTable([pair.dns_names for pair in pairs])

    def __repr__(self) -> str:
        return f"<ServedCertificates {len(self.pairs)}>"

    def index_of(self, name: str) -> int:
        """Which pair a client gets that asks for `name`, in lower case; empty where it asks for none."""
        return self._names.index_of(name)

    def wrap(self, index: int) -> Wrap:
        """How a connection begins that is shown this pair."""
        context = self.pairs[index].context

        def wrapped(incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
            return context.wrap_bio(incoming, outgoing, server_side=True)

        return wrapped


def files_of(tls: ListenerTls) -> tuple[str, ...]:
    """All that a set is made of."""
    found = [path for pair in tls.pairs for path in (pair.chain, pair.key)]
    if tls.client_ca is not None and tls.client is not ClientCertificate.OFF:
        found.append(tls.client_ca)
    return tuple(dict.fromkeys(found))


def load_served(listener: Listener, digest: str = "") -> ServedCertificates:
    """Read and check all files of a listener that has a `tls`; for a thread.

    `digest`: of what they held just before.

    Raises:
        TlsFileError: one of them cannot be used; the text says which, and why.
    """
    tls = listener.tls
    assert tls is not None, "asked of listeners with TLS alone"
    offered = OFFERED[listener.protocol]
    pairs = [_load_pair(tls, files, offered) for files in tls.pairs]
    return ServedCertificates(pairs, tls.client, offered, digest)


def _load_pair(tls: ListenerTls, files: CertificateFiles, offered: Sequence[str]) -> ServedPair:
    context = server_context(tls.minimum_version)
    own = load_pair(context, files, is_server=True)
    context.verify_mode = _RULES[tls.client]
    if tls.client is not ClientCertificate.OFF:
        trust(context, tls.client_ca)
    context.set_alpn_protocols(list(offered))
    return ServedPair(own, context)


def shown_by(client: TlsTransport) -> ShownCertificate | None:
    """The certificate of the client, after its handshake; None where it has shown none.

    Raises:
        TlsFailed: it cannot be used.
    """
    verified, der = client.peer_certificate, client.tls.getpeercert(binary_form=True)
    if not verified or der is None:
        return None
    return ShownCertificate(
        hashlib.sha256(der).hexdigest(),
        subject(verified),
        tuple(of_kind(verified, "URI"))[:MAX_NAMES],
        tuple(of_kind(verified, "DNS"))[:MAX_NAMES],
    )
