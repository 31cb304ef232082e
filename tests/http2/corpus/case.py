"""What a case of the corpus is: what a peer sends, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.http2.codec import Role

SERVER, CLIENT = (Role.SERVER,), (Role.CLIENT,)
BOTH = (Role.SERVER, Role.CLIENT)


@dataclass(frozen=True)
class Fails:
    """The connection ends: GOAWAY with this code."""

    code: int


@dataclass(frozen=True)
class Resets:
    """One stream ends: RST_STREAM with this code, and the connection goes on."""

    stream_id: int
    code: int


@dataclass(frozen=True)
class Takes:
    """Nothing is wrong: these events, those of settings and acknowledgements left out."""

    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """`rule` is the section and what it says. A client under test has sent GET on streams 1 and 3, which are open."""

    rule: str
    data: bytes
    then: Fails | Resets | Takes
    roles: tuple[Role, ...] = SERVER
    has_begun: bool = True
    """The preface and SETTINGS came before."""
