"""A listener's terms without a listener."""

from __future__ import annotations

from typing import Any

from sidecar.core.request import Asked
from sidecar.core.snapshot import Address, Listener, ListenerLimits, Unmatched
from sidecar.core.tls_numbers import Handshake
from sidecar.downstream.terms import ListenerTerms
from sidecar.transport.link import Link


class HandTerms(ListenerTerms):
    """As much of a listener as a reader of heads asks for."""

    def __init__(self, limits: ListenerLimits, *, small_head_bytes: int, is_trusted: bool = True) -> None:
        self.policy = Listener("inbound", Address("127.0.0.1", 0), limits)
        self.name = "inbound"
        self.limits = limits
        self.small_head_bytes = self.cookieless_head_bytes = small_head_bytes
        self.is_trusted = is_trusted

    @property
    def takes_connect(self) -> bool:
        return False

    @property
    def unmatched(self) -> Unmatched:
        raise AssertionError("not asked for here")

    @property
    def opaque_ports(self) -> frozenset[int]:
        raise AssertionError("not asked for here")

    def detect(self, connection: Any, link: Link, asked: Asked, data: bytes) -> None:
        raise AssertionError("not asked for here")

    def accept(self, connection: Any) -> bool:
        raise AssertionError("not asked for here")

    def shaken(self, result: Handshake, peer: tuple[str, int] | None = None, detail: str = "") -> None:
        raise AssertionError("not asked for here")

    def forget(self, connection: Any) -> None:
        raise AssertionError("not asked for here")

    def replace(self, connection: Any, by: Any) -> None:
        raise AssertionError("not asked for here")
