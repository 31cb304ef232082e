"""The words in which the corpus says what must come of a message."""

from __future__ import annotations

from dataclasses import dataclass

Names = tuple[bytes, ...]
Pairs = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Forwarded:
    """The upstream gets exactly this request, and the client the answer to it."""

    target: bytes = b"/first"
    method: bytes = b"GET"
    host: bytes | None = b"a"
    """None: the upstream's own address, for a request that names no host."""
    body: bytes = b""
    framing: str = "none"
    """none, length or chunked."""
    has: Pairs = ()
    """Fields that must be there, once."""
    lacks: Names = ()
    """Fields that must not."""
    trailers: Pairs = ()
    closes: bool = False
    """The connection ends with this answer; what came behind it is not read."""


@dataclass(frozen=True)
class Refused:
    """The client gets this status and a closed connection; the upstream gets not one byte."""

    status: int = 400


@dataclass(frozen=True)
class Cut:
    """Found bad in its body, which is streamed: the client gets this status and a closed connection, the upstream
    at most a request without its end and a closed connection."""

    status: int = 400


RequestOutcome = Forwarded | Refused | Cut


@dataclass(frozen=True)
class RequestCase:
    """One client's bytes. With several outcomes, `data` holds as many requests."""

    name: str
    why: str
    """The section of RFC 9112 (or another) and the reason."""
    data: bytes
    outcomes: tuple[RequestOutcome, ...]
    can_be_followed: bool = True
    """False where the request is not complete, so that anything behind it is still a part of it."""

    def __str__(self) -> str:
        return self.name


def forwarded(name: str, why: str, data: bytes, *outcomes: Forwarded) -> RequestCase:
    return RequestCase(name, why, data, outcomes or (Forwarded(),))


def refused(name: str, why: str, data: bytes, status: int = 400, *, whole: bool = True) -> RequestCase:
    """`whole` is False where the bytes are still a valid beginning."""
    return RequestCase(name, why, data, (Refused(status),), whole)


def cut(name: str, why: str, data: bytes, status: int = 400, *, whole: bool = True) -> RequestCase:
    return RequestCase(name, why, data, (Cut(status),), whole)


@dataclass(frozen=True)
class Relayed:
    """The client gets this, complete."""

    status: int = 200
    body: bytes = b"hello"
    lacks: Names = ()
    has: Pairs = ()
    interims: tuple[int, ...] = ()
    trailers: Pairs = ()
    closes: bool = False
    """The client's connection ends behind it."""


@dataclass(frozen=True)
class BadGateway:
    """The client gets 502 with this `Proxy-Status` error, and its connection goes on."""

    error: bytes = b"http_protocol_error"
    interims: tuple[int, ...] | None = ()
    """None: any number, as many as came before the limit was noticed."""
    closes: bool = False


@dataclass(frozen=True)
class Aborted:
    """The answer was under way when it turned out bad: the client's connection is cut, and nothing that it got
    can be taken for a whole answer."""


@dataclass(frozen=True)
class Tunnelled:
    """The client gets the 101 and then `data`, up to the end."""

    data: bytes


ResponseOutcome = Relayed | BadGateway | Aborted | Tunnelled
GET = b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass(frozen=True)
class ResponseCase:
    """What an upstream says to one request."""

    name: str
    why: str
    parts: tuple[bytes, ...]
    """Written one after the other, with a moment in between."""
    outcome: ResponseOutcome
    """Where each part arrives in one read."""
    request: bytes = GET
    keeps: bool = False
    """The upstream's connection is fit for the next request."""
    then: str = "stay"
    """What the upstream does next: stay, close or reset."""
    in_pieces: ResponseOutcome | None = None
    """Where it arrives byte by byte, if that makes a difference: the client has had the head by then."""
    when: str = "request"
    """When it speaks: after the whole request, after its head, or at once on accepting (request, head, accept)."""

    def __str__(self) -> str:
        return self.name
