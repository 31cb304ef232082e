"""What a request to the admin server says: its query, strictly, and who sends it."""

from __future__ import annotations

import socket
import struct
from bisect import bisect
from collections.abc import Iterable
from itertools import islice
from typing import Any

from sidecar.admin.answers import Refused
from sidecar.serving.message import Pairs, Request

MAX_TEXT = 256
"""Characters of a client's own text that are kept."""
MAX_PARAMETERS = 10
MAX_COMPARED = 32
"""Words that a misspelt one is compared with."""
_CREDENTIALS = struct.Struct("3i")
"""`struct ucred`: pid, uid, gid."""


def query(request: Request, *names: str, several: str = "") -> Pairs:
    """The query parameters of a change: a misspelt `for` would make an override without an end.

    Raises:
        Refused: 400, for one that is not among `names`, or is there twice, unless it is `several`.
    """
    for name in request.query:
        if name not in names:
            what = f"there is no query parameter {name[:100]!r} here"
            raise Refused(400, f"{what}{nearest(name, names)}")
        if name != several and len(request.query.all(name)) > 1:
            raise Refused(400, f"{name} is given more than once")
    return request.query


def summary(request: Request) -> dict[str, Any]:
    """What is asked, and who asks, for the log; taken before it is handled, as the connection may not live on."""
    sent = {"user_agent": request.headers.get("user-agent"), "origin": request.headers.get("origin")}
    return {
        "path": request.path[:MAX_TEXT],
        "query": {key[:100]: value[:100] for key, value in islice(request.query.items(), MAX_PARAMETERS)},
        "client": peer(request) or None,
        **{key: None if text is None else text[:MAX_TEXT] for key, text in sent.items()},
    }


def peer(request: Request) -> str:
    """Where the request comes from: an address, or the process behind a UNIX socket; empty if nobody knows."""
    return request.remote or _process(request) or ""


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint to append to a message, or nothing.

    Of many words it compares those that begin or end most like this one: a thousand would hold up the loop for 90 ms.
    """
    import difflib  # for misspelt words alone

    found = difflib.get_close_matches(word[:MAX_TEXT], _alike(word[:MAX_TEXT], list(words)), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _alike(word: str, words: list[str]) -> list[str]:
    if len(words) <= MAX_COMPARED:
        return words
    from_behind = (one[::-1] for one in _around(word[::-1], sorted(one[::-1] for one in words)))
    return list(dict.fromkeys((*_around(word, sorted(words)), *from_behind)))


def _around(word: str, ordered: list[str]) -> list[str]:
    """The words beside which this one would stand: no others have as long a beginning in common with it."""
    place = bisect(ordered, word)
    return ordered[max(0, place - MAX_COMPARED // 4) : place + MAX_COMPARED // 4]


def _process(request: Request) -> str | None:
    found = peer_process(request)
    return None if found is None else f"uid {found[0]}, pid {found[1]}"


def peer_process(request: Request) -> tuple[int, int] | None:
    """The uid and pid of who connected to a UNIX socket, as the kernel says; None where it does not."""
    connection = request.client.about("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    # What uvloop gives out as a socket has no options. Of the same descriptor: there may be none left for a copy.
    same = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, connection.fileno())
    try:
        raw = same.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    finally:
        same.detach()
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return uid, pid
