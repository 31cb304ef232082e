"""The client side: contexts for what an upstream may ask and show, sessions, and who the other side has to be.

One context serves every upstream that says the same of CA, own certificate and protocols: the system's CAs take 1 MiB
and 20 ms each time they are loaded. Sessions are apart by upstream, endpoint, name and identities, used once, and
dropped with the context: a session of one name is accepted by OpenSSL under another, whatever `check_hostname` says
(measured), so name or identity is compared here after each handshake, resumed or not. Owned by the event loop; only
`ClientContext.load` is for a thread.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Final

from sidecar.core.alpn import OFFERED
from sidecar.core.dataclass import dataclass
from sidecar.core.errors import Reason
from sidecar.core.snapshot import CertificateFiles, Upstream, UpstreamTls
from sidecar.transport.tls import names
from sidecar.transport.tls.failures import TlsFailed
from sidecar.transport.tls.files import OwnCertificate, client_context, load_pair, trust
from sidecar.transport.tls.transport import TlsTransport, Wrap

MAX_SESSIONS: Final = 256
"""Of one context; about 6 KiB each, the other side's chain included."""
MAX_SESSIONS_OF_ONE: Final = 4
"""Of one name at one endpoint."""


@dataclass(frozen=True, slots=True)
class ContextKey:
    """What makes two upstreams need two contexts."""

    ca: str | None
    certificate: CertificateFiles | None
    alpn: tuple[str, ...]
    has_name: bool
    """OpenSSL compares the name, too: then no certificate of ours is shown to another server."""

    @property
    def files(self) -> tuple[str, ...]:
        """All that a context of it is made of."""
        pair = (self.certificate.chain, self.certificate.key) if self.certificate is not None else ()
        return (*((self.ca,) if self.ca is not None else ()), *pair)


def context_key(upstream: Upstream) -> ContextKey:
    """Of an upstream that has a `tls`."""
    tls = upstream.tls
    assert tls is not None
    return ContextKey(tls.ca, tls.certificate, tls.alpn or OFFERED[upstream.protocol], not tls.identities)


@dataclass(frozen=True, slots=True)
class LoadedClient:
    """A context that was made and checked, and that nobody uses yet."""

    context: ssl.SSLContext
    own: OwnCertificate | None


class Sessions:
    """Those that may be resumed, the oldest first. Each is used once (RFC 8446 C.4)."""

    __slots__ = ("_count", "_kept", "dropped")

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, list[ssl.SSLSession]] = OrderedDict()
        self._count = 0
        self.dropped = 0
        """For want of room."""

    def __len__(self) -> int:
        return self._count

    def take(self, key: Hashable) -> ssl.SSLSession | None:
        kept = self._kept.get(key)
        if not kept:
            return None
        self._count -= 1
        session = kept.pop()
        if not kept:
            del self._kept[key]
        return session

    def has_room(self, key: Hashable) -> bool:
        """Whether one more of its kind is of use: asking OpenSSL for it takes 0.16 ms."""
        return len(self._kept.get(key, ())) < MAX_SESSIONS_OF_ONE

    def keep(self, key: Hashable, session: ssl.SSLSession | None) -> None:
        """The newest one counts: of its own kind the oldest goes, else that of whoever came first."""
        if session is None or not (session.has_ticket or session.id):
            return
        kept = self._kept.setdefault(key, [])
        self._kept.move_to_end(key)
        kept.append(session)
        self._count += 1
        if len(kept) > MAX_SESSIONS_OF_ONE:
            kept.pop(0)
            self._count -= 1
            self.dropped += 1
        while self._count > MAX_SESSIONS:
            _, oldest = self._kept.popitem(last=False)
            self._count -= len(oldest)
            self.dropped += len(oldest)


class ClientContext:
    """The context that is current for one `ContextKey`, and the sessions that were made with it."""

    __slots__ = ("_loaded", "key", "sessions")

    def __init__(self, key: ContextKey, loaded: LoadedClient) -> None:
        self.key = key
        self._loaded = loaded
        self.sessions = Sessions()

    def __repr__(self) -> str:
        return f"<ClientContext {len(self.sessions)} sessions>"

    @staticmethod
    def load(key: ContextKey) -> LoadedClient:
        """Read and check all files; for a thread.

        Raises:
            TlsFileError
        """
        context = client_context()
        context.check_hostname = key.has_name
        own = load_pair(context, key.certificate, is_server=False) if key.certificate is not None else None
        trust(context, key.ca)
        context.set_alpn_protocols(list(key.alpn))
        return LoadedClient(context, own)

    @property
    def own(self) -> OwnCertificate | None:
        """What is shown to who asks."""
        return self._loaded.own

    def use(self, loaded: LoadedClient) -> None:
        """From now on, for new connections; no session of the old one is used any more."""
        self._loaded = loaded
        self.sessions = Sessions()

    def wrap(self, name: str, session: ssl.SSLSession | None) -> Wrap:
        """By the context of this moment, whose sessions alone it takes."""
        context = self._loaded.context

        def wrapped(incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
            return context.wrap_bio(incoming, outgoing, server_hostname=name or None, session=session)

        return wrapped


class ServerIdentity:
    """Who one upstream has to be, at one endpoint, and how a connection to it begins."""

    __slots__ = ("_context", "_identities", "_key", "name")

    def __init__(
        self, context: ClientContext, upstream: str, endpoint: Hashable, host: str, tls: UpstreamTls
    ) -> None:
        """`host`: the endpoint's name or address, which is asked for unless `tls` names another."""
        self._context = context
        self._identities = tls.identities
        self.name = (tls.server_name or host).rstrip(".")
        self._key = upstream, endpoint, self.name, tls.identities

    def begin(self, make: Callable[[Wrap], TlsTransport]) -> TlsTransport:
        """A connection's TLS, with a session of an earlier one if there is one; it will keep its own for the next."""
        sessions, key = self._context.sessions, self._key

        def taken(done: TlsTransport) -> None:
            if sessions.has_room(key):
                sessions.keep(key, done.tls.session)

        transport = make(self._context.wrap(self.name, sessions.take(key)))
        transport.session_taker = taken
        return transport

    def verify(self, transport: TlsTransport) -> None:
        """After each handshake, resumed or not: is it who it should be?

        Raises:
            TlsFailed
        """
        certificate = transport.peer_certificate
        if not certificate:
            raise TlsFailed(Reason.TLS_CERTIFICATE, "certificate refused: there is none that was verified")
        if self._identities:
            if not names.has_identity(certificate, self._identities):
                found = names.told_names(certificate)
                detail = f"certificate refused: it has none of `identities`; it is for {found}"
                raise TlsFailed(Reason.TLS_CERTIFICATE, detail)
        elif not names.has_name(certificate, self.name):
            detail = f"certificate refused: it is not for {self.name} but for {names.told_names(certificate)}"
            raise TlsFailed(Reason.TLS_CERTIFICATE, detail)
        assert transport.facts is not None
        transport.facts = replace(
            transport.facts, sni=self.name or None, identity=names.identity(certificate)
        )
