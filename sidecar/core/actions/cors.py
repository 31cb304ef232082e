"""CORS (Fetch Standard 3.3): which answers a browser may show to pages of other origins.

The route decides alone: what an upstream says of it itself is left out (`OWNED`), so that no answer has two rules.
A preflight is answered here, also where nothing is allowed; then it has none of these fields, and the browser
refuses the request.

Wildcards: with credentials a browser takes `*` for a name (Fetch 3.3.5), so what was asked for is named instead.
Origin `null` (sandboxed pages, files) is nobody, so `*` does not allow it credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import floor
from typing import Final

from sidecar.core.actions.policy import CorsPolicy

OWNED: Final = frozenset({
    b"access-control-allow-origin", b"access-control-allow-credentials", b"access-control-allow-methods",
    b"access-control-allow-headers", b"access-control-allow-private-network", b"access-control-expose-headers",
    b"access-control-max-age",
})  # fmt: skip
"""Fields of an upstream's answer that the route writes itself."""

_ORIGIN: Final = b"origin"
_METHOD: Final = b"access-control-request-method"
_HEADERS: Final = b"access-control-request-headers"
_PRIVATE: Final = b"access-control-request-private-network"
_TOKEN: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
MOST_ASKED: Final = 100
"""Names of fields that one preflight may ask for; a browser asks for few."""

Lines = list[tuple[bytes, bytes]]


class Cors:
    """One route's rules, ready for its requests."""

    __slots__ = (
        "_allows_any", "_allows_private", "_exact", "_exposed", "_headers", "_max_age", "_methods", "_suffixes",
        "_with_credentials",
    )  # fmt: skip

    def __init__(self, policy: CorsPolicy) -> None:
        self._allows_any = "*" in policy.allow_origins
        self._exact = frozenset(one.encode() for one in policy.allow_origins if "*" not in one)
        self._suffixes = tuple(
            (scheme.encode() + b"://", rest.encode())
            for scheme, _, rest in (one.partition("://*") for one in policy.allow_origins)
            if rest
        )
        self._with_credentials = policy.allow_credentials
        self._allows_private = policy.allow_private_network
        self._methods = tuple(one.encode() for one in policy.allow_methods)
        self._headers = tuple(one.encode() for one in policy.allow_headers)
        self._exposed = ", ".join(policy.expose_headers).encode()
        self._max_age = b"%d" % floor(policy.max_age_seconds)

    def allows(self, origin: bytes) -> bool:
        """Whether pages of `origin` may use the route. Scheme and host are compared in lower case."""
        origin = origin.lower()
        if origin in self._exact:
            return True
        if origin == b"null":
            return self._allows_any and not self._with_credentials
        return self._allows_any or any(
            origin.startswith(scheme) and origin.endswith(rest) and _is_name(origin[len(scheme) : -len(rest)])
            for scheme, rest in self._suffixes
        )

    @staticmethod
    def is_preflight(method: bytes, lookup: Mapping[bytes, bytes]) -> bool:
        """Whether a browser asks what it may ask for (Fetch 3.3.2)."""
        return method == b"OPTIONS" and _ORIGIN in lookup and _METHOD in lookup

    def preflight(self, lookup: Mapping[bytes, bytes]) -> Lines:
        """The fields of the answer to a preflight."""
        lines: Lines = [(b"Vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")]
        origin, method = lookup[_ORIGIN], lookup[_METHOD]
        asked = [one.strip() for one in lookup.get(_HEADERS, b"").split(b",") if one.strip()]
        is_sound = len(asked) <= MOST_ASKED and all(map(_is_token, (method, *asked)))
        if not (is_sound and self.allows(origin)):
            return lines
        lines += self._origin(origin)
        methods = self._methods
        if b"*" in methods and self._with_credentials:
            methods = (method,)
        if methods:
            lines.append((b"Access-Control-Allow-Methods", b", ".join(methods)))
        headers = self._headers
        if b"*" in headers and self._with_credentials:
            headers = tuple(asked)
        if headers:
            lines.append((b"Access-Control-Allow-Headers", b", ".join(headers)))
        lines.append((b"Access-Control-Max-Age", self._max_age))
        if self._allows_private and lookup.get(_PRIVATE, b"").lower() == b"true":
            lines.append((b"Access-Control-Allow-Private-Network", b"true"))
        return lines

    def answer(self, lookup: Mapping[bytes, bytes]) -> Lines:
        """The fields of any other answer of the route."""
        lines: Lines = [] if self._is_same_for_all else [(b"Vary", b"Origin")]
        origin = lookup.get(_ORIGIN)
        if origin is None or not self.allows(origin):
            return lines
        lines += self._origin(origin)
        if self._exposed:
            lines.append((b"Access-Control-Expose-Headers", self._exposed))
        return lines

    @property
    def _is_same_for_all(self) -> bool:
        """A cache may give one answer to pages of all origins."""
        return self._allows_any and not self._with_credentials

    def _origin(self, origin: bytes) -> Lines:
        if self._is_same_for_all:
            return [(b"Access-Control-Allow-Origin", b"*")]
        lines: Lines = [(b"Access-Control-Allow-Origin", origin)]
        if self._with_credentials:
            lines.append((b"Access-Control-Allow-Credentials", b"true"))
        return lines


def _is_name(labels: bytes) -> bool:
    """What may stand for the `*` of `https://*.example`: one label or more."""
    return bool(labels) and not (set(labels) - _LABELS) and not labels.startswith(b".")


_LABELS: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")


def _is_token(text: bytes) -> bool:
    return bool(text) and _TOKEN.issuperset(text)
