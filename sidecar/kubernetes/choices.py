"""The values of an injection's settings: what a text says, as a flag or an annotation gives it."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum

_TRUE, _FALSE = frozenset({"true", "enabled"}), frozenset({"false", "disabled"})
_NEXT_VARIABLE = re.compile(r",(?=[A-Za-z_][A-Za-z0-9_]{0,127}=)")
_MAX_LISTED = 50
MAX_USER_ID = 2**31 - 1
SHOWN = 60
"""Characters of a value that a message repeats."""


class Mode(Enum):
    """How the sidecar stands in the pod."""

    NATIVE = "native"
    """An init container with `restartPolicy: Always`: starts before the app, ends after it; Jobs end."""
    CONTAINER = "container"
    """A container beside the app, for clusters before 1.29."""


class PullPolicy(Enum):
    """When the kubelet asks the registry for the image."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class AppProtocol(Enum):
    """What the app reads; `${APP_PROTOCOL}` in the configuration."""

    HTTP1 = "http1"
    HTTP2 = "http2"
    """Without TLS, as gRPC servers do."""


class ClusterUser(Enum):
    """Instead of a user's number."""

    UNSET = "unset"
    """The cluster gives one, as OpenShift does."""


Pairs = tuple[tuple[str, str], ...]
"""Names and values."""


def text_of(value: object) -> str:
    """What YAML may have read as a boolean or a number."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_flag(text: str) -> bool:
    """Whether it says yes or no."""
    return text.lower() in _TRUE | _FALSE


def read(key: str, text: str, kind: str) -> object:
    """The value of the setting `key`, whose type in `Settings` is `kind`. Raises: ValueError."""
    reader = _READERS.get(kind)
    return text if reader is None else reader(key, text)


def _words(enumeration: type[Enum]) -> Callable[[str, str], Enum]:
    def chosen(key: str, text: str) -> Enum:
        for member in enumeration:
            if member.value == text:
                return member
        *most, last = (str(member.value) for member in enumeration)
        raise ValueError(f"{key}: {text[:SHOWN]!r} is neither {', '.join(most)} nor {last}")

    return chosen


def _number(key: str, text: str, what: str = "port") -> int:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MAX_USER_ID)):
        raise ValueError(f"{key}: {text[:SHOWN]!r} is no {what}")
    return int(text)


def _user(key: str, text: str) -> int | ClusterUser:
    return (
        ClusterUser.UNSET
        if text == ClusterUser.UNSET.value
        else _number(key, text, "user: a number, or unset")
    )


def _listed(key: str, text: str) -> tuple[str, ...]:
    items = tuple(item.strip() for item in text.split(",") if item.strip())
    if len(items) > _MAX_LISTED:
        raise ValueError(f"{key}: at most {_MAX_LISTED} items")
    return items


def _pairs(key: str, text: str) -> Pairs:
    pairs = []
    for item in _NEXT_VARIABLE.split(text):
        name, sign, value = item.partition("=")
        if not sign:
            raise ValueError(f"{key}: {item[:SHOWN]!r} is no variable; write NAME=VALUE,NAME=VALUE")
        pairs.append((name.strip(), value))
    if len(pairs) > _MAX_LISTED:
        raise ValueError(f"{key}: at most {_MAX_LISTED} variables")
    return tuple(pairs)


def flag(key: str, text: str) -> bool:
    """Raises: ValueError."""
    if not is_flag(text):
        raise ValueError(f'{key}: {text!r} is neither "true" nor "false"')
    return text.lower() in _TRUE


_READERS: dict[str, Callable[[str, str], object]] = {
    "bool": flag,
    "int": _number,
    "int | None": _number,
    "int | ClusterUser": _user,
    "Mode": _words(Mode),
    "PullPolicy | None": _words(PullPolicy),
    "AppProtocol | None": _words(AppProtocol),
    "tuple[str, ...]": _listed,
    "tuple[int, ...]": lambda key, text: tuple(_number(key, item) for item in _listed(key, text)),
    "Pairs": _pairs,
}
"""By the type of a field of `Settings`; other annotations are texts."""
