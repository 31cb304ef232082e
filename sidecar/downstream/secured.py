"""One client connection's TLS, as its requests see it: who the client is, and which hosts it was made for."""

from __future__ import annotations

from typing import Protocol

from sidecar.core.client_tls import ClientTls
from sidecar.core.errors import Reason
from sidecar.core.hosts import normal_host
from sidecar.forwarding.given_up import GivenUp


class Choice(Protocol):
    """The certificates of one listener, as they were when the connection was accepted."""

    def index_of(self, name: str) -> int:
        """Which certificate a client gets that asks for `name`, in lower case; empty where it asks for none."""


class Secured:
    """One for each connection over TLS."""

    __slots__ = ("_certificates", "_chosen", "_host", "told")

    def __init__(self, told: ClientTls, certificates: Choice) -> None:
        self.told = told
        self._certificates = certificates
        self._chosen = certificates.index_of(told.server_name)
        self._host = b""
        """The last one that was found to be right: most requests of a connection name the same."""

    def refusal(self, host: bytes) -> GivenUp | None:
        """421 for a host for which this listener would have shown another certificate (RFC 9110 7.4, 15.5.20)."""
        if host == self._host:
            return None
        name = normal_host(host).decode("ascii", "replace")
        if self._certificates.index_of(name) == self._chosen:
            self._host = host
            return None
        asked = self.told.server_name or "no name"
        detail = (
            f"this connection was made for {asked}, and {name} has another certificate: connect to it anew"
        )
        return GivenUp(Reason.MISDIRECTED, detail)
