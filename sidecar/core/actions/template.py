"""A header value that holds variables, such as `${client.address}`: parts of text, and what stands between them.

Here is which variables there are, and the value as the snapshot has it. `facts.py` fills them in for one request.

The parser of the file hands a variable on between two NULs, which nothing else in a file or in the environment can
hold: so `$${client.address}` (the text itself) and a value of the environment are never taken for a variable.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from sidecar.core.dataclass import dataclass

MARK: Final = "\0"
"""Before and behind the name of a variable, in text that the parser has read."""

FIELD: Final = "request.header."
"""Before the name of a field of the request."""

NAMES: Final = (
    "client.address", "client.port", "client.identity", "listener.name", "request.host", "request.id",
    "request.method", "request.path", "request.query", "request.scheme", "route.name", "trace.id",
)  # fmt: skip

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MARKED: Final = re.compile(rf"{MARK}([^{MARK}]*){MARK}")


class Variable(NamedTuple):
    """One of `NAMES`, or a field of the request."""

    name: str
    field: bytes = b""
    """Its lower-case name; empty for the others."""

    def __str__(self) -> str:
        return f"${{{self.name}}}"


@dataclass(frozen=True, slots=True)
class Template:
    """A value with at least one variable."""

    parts: tuple[bytes | Variable, ...]

    def __str__(self) -> str:
        """As the file writes it, but for the escape of a `${` that is none."""
        return "".join(
            part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part) for part in self.parts
        )


Value = bytes | Template
"""Of a header field that a route sets or adds."""


def has_variable(text: str) -> bool:
    """Whether the parser has left a variable of requests in `text`."""
    return _MARKED.search(text) is not None


def as_written(text: str) -> str:
    """`text` with its variables as the file has them, for messages."""
    return _MARKED.sub(r"${\1}", text)


def literal_parts(text: str) -> list[str]:
    """What stands around and between the variables."""
    return _MARKED.split(text)[::2]


def variables(text: str) -> list[Variable]:
    """Those of `text`, in order.

    Raises:
        ValueError: there is no such variable; names those that there are.
    """
    return [_variable(name) for name in _MARKED.findall(text)]


def value_of(text: str) -> Value:
    """The bytes of `text`, or its template if it has a variable. Raises: ValueError, as `variables`."""
    if not has_variable(text):
        return text.encode()
    parts: list[bytes | Variable] = []
    for number, part in enumerate(_MARKED.split(text)):
        if number % 2:
            parts.append(_variable(part))
        elif part:
            parts.append(part.encode())
    return Template(tuple(parts))


def _variable(name: str) -> Variable:
    if name in NAMES:
        return Variable(name)
    field = name.removeprefix(FIELD)
    if field != name and _TOKEN.fullmatch(field):
        return Variable(FIELD + field.lower(), field.lower().encode())
    raise ValueError(
        f"there is no variable ${{{name}}}: known are {', '.join(NAMES)} and {FIELD}NAME; "
        "write $${ for the characters ${"
    )
