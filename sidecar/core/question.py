"""One request as the conditions of routes ask about it: each thing is read once, and the work has a bound.

A listener may have many routes that compare the same path, field or parameter with regular expressions. A client
chooses the text, so without a bound it chooses how long the loop is busy: twenty expressions such as
`(a|b)*a(a|b){20}` on a field of 60 KB in the worst order of letters take 95 ms. So an answer is kept for the whole
look-up, and each comparison is charged by its length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sidecar.core.path import unescape_all
from sidecar.core.snapshot import Pattern

MOST_WORK: Final = 250_000
"""Of one look-up: bytes of text times steps of the expression (`Pattern.steps`). The worst text and expression were
measured to take 5.8 ns for each, so this is 1.5 ms; a usual path stays below a thousandth of it. The shortest text
costs a call all the same (`CALL_WORK`)."""
CALL_WORK: Final = 200
_NO_PARAMETERS: Final[Mapping[bytes, bytes]] = {}


class TooMuchWork(Exception):
    """The text says so, for people."""

    def __init__(self) -> None:
        super().__init__("the request is too long for the regular expressions of this listener's routes")


class Question:
    """What a client asks for, beyond host and path. Lives as long as one look-up."""

    __slots__ = ("_answers", "_parameters", "_query", "_wanted", "client", "fields", "left", "method", "port")

    def __init__(
        self,
        method: bytes,
        fields: Mapping[bytes, bytes],
        query: bytes,
        wanted: frozenset[bytes] | None = None,
        most_work: float = MOST_WORK,
        client: str = "",
        port: int = 0,
    ) -> None:
        self.method = method
        self.port = port
        """That the client asks for; looked at only where some condition is one on the port."""
        self.client = client
        """Who asks, by the certificate of its connection; empty for everybody who has shown none."""
        self.fields = fields
        """Values by lower-case name."""
        self._query = query
        self._wanted = wanted
        self._parameters: Mapping[bytes, bytes] | None = None
        self._answers: dict[tuple[str, bytes], bool] = {}
        self.left = most_work

    @property
    def parameters(self) -> Mapping[bytes, bytes]:
        """Those of the query that some condition wants."""
        parameters = self._parameters
        if parameters is None:
            query = self._query
            parameters = parse_query(query, self._wanted) if query else _NO_PARAMETERS
            self._parameters = parameters
        return parameters

    def holds(self, regex: Pattern, value: bytes) -> bool:
        """Whether `value` is what `regex` says.

        Raises:
            TooMuchWork: with this comparison the look-up would take too long.
        """
        if not value.startswith(regex.prefix):
            return False
        key = regex.pattern, value
        known = self._answers.get(key)
        if known is not None:
            return known
        # A byte that is no UTF-8 is compared as the three of U+FFFD.
        size = len(value) if value.isascii() else 3 * len(value)
        self.left -= size * regex.steps + CALL_WORK
        if self.left < 0:
            raise TooMuchWork()
        answer = self._answers[key] = regex.holds(value)
        return answer


def parse_query(query: bytes, wanted: frozenset[bytes] | None = None) -> dict[bytes, bytes]:
    """Read a query string; of a repeated parameter the first counts, as Gateway API recommends.

    `wanted`: the names that somebody asks for; what the others hold is not even unescaped. None: all names.
    """
    values: dict[bytes, bytes] = {}
    for part in query.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            if 37 in name or 43 in name:  # % and +
                name = decoded(name)
            if (wanted is None or name in wanted) and name not in values:
                values[name] = decoded(value)
    return values


def decoded(part: bytes) -> bytes:
    """A name or a value as forms write it: `+` is a space."""
    return unescape_all(part.replace(b"+", b" ")) if 37 in part or 43 in part else part
