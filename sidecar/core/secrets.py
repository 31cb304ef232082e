"""Which values are told to nobody: not in a log or a span, not in a dump, a message or an explanation.

Two signs make a value a secret: a name that secrets have, and, for what may be any text, that the environment gave
it. This is the only place that knows such names; log, spans, the admin API and the command line all ask here.

A name is a secret's if one of these is in it, whatever the case: see `_ANYWHERE`, `_AS_A_WORD` and `_WHOLE`. A
value too much that is hidden costs a look into the file; one too little is in every log that was kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

_ANYWHERE = (
    # authorization, oauth_token, x-auth; but no author and no :authority
    r"auth(?!or(?!i[sz]))",
    r"cookie",
    # access_token, x-csrf-token; but tokens and max_tokens are numbers
    r"token(?!s(?![a-z]))",
    r"secret",
    r"passw|passphrase|passcode|pwd",
    r"credential",
    r"session|sessid",
    r"signature",
    r"jwt|bearer|saml|assertion|verifier|csrf|xsrf|hmac",
    r"api[-_.]?keys",
    # api_key, AWSAccessKeyId, signingKey; but no keyword, keyboard, monkey, sort_keys
    r"(?<!mon|tur|don|hoc)key(?!s(?![a-z])|words?|board|frame|note|stone|space)",
)
"""Parts of a name, wherever they stand in it."""
_AS_A_WORD = r"sig|sid|pin|otp|totp|pass|creds?"
"""Short ones count only where no letter is beside them: `sig` and `connect.sid`, not `design` and `inside`."""
_WHOLE = r"code|state"
"""Have to be the whole name: OAuth's `code` and `state` (RFC 6749 4.1.2), but not `country_code`."""

SECRET_NAME: Final = (
    rf"(?:{'|'.join(_ANYWHERE)}|(?<![a-z])(?:{_AS_A_WORD})(?![a-z])|(?<![\w.-])(?:{_WHOLE})(?![\w.-]))"
)
"""The same as a regular expression without groups, to be searched in any case: in a name, or in a text."""

HIDDEN: Final = "(hidden)"
"""Stands for a secret in what the sidecar itself says."""
REDACTED: Final = b"REDACTED"
"""Stands for one in a query: OpenTelemetry's word, https://opentelemetry.io/docs/specs/semconv/http/http-spans/."""

_is_in = re.compile(SECRET_NAME, re.IGNORECASE).search
_URL = re.compile(r"(?<=://)[^/?#\s'\"]*@|\?[^#\s'\"]*")
_SEPARATOR = re.compile(rb"([&;])")
_EQUALS: Final = 0x3D
_SEMICOLON: Final = 0x3B
"""As numbers: to look for bytes in bytes takes 0.2 µs more than for one of them."""
_MAX_CACHED_NAME = 64


def may_be_secret(name: str) -> bool:
    """True for the name of a header field, a query parameter or a key that is likely to carry a secret."""
    return _is_in(name) is not None


def is_hidden(name: str, text: str, hidden: frozenset[str]) -> bool:
    """True if `text` is told to nobody: it stands under a name that secrets have (empty for what has no name, such
    as a path), or is one of `hidden`, the texts that the environment gave."""
    return text in hidden or may_be_secret(name)


def without_secrets(url: str, told: Callable[[str], str] = lambda _: HIDDEN) -> str:
    """A URL without its user, password and query; `told` makes what stands in the place of each."""

    def hidden(found: re.Match[str]) -> str:
        text = found[0]
        return f"?{told(text[1:])}" if text.startswith("?") else f"{told(text[:-1])}@"

    return _URL.sub(hidden, url)


def redacted_query(query: bytes) -> bytes:
    """The query of a request with `REDACTED` for each value under a name that secrets have; all else byte for byte.

    Parameters end at `&` or `;`, for servers part at either. Names are unescaped before they are judged.
    """
    if _EQUALS not in query:
        return query
    if _SEMICOLON not in query:
        return b"&".join([_redacted(pair) for pair in query.split(b"&")])
    parts = _SEPARATOR.split(query)
    for index in range(0, len(parts), 2):
        parts[index] = _redacted(parts[index])
    return b"".join(parts)


def redacted_path(path: bytes) -> bytes:
    """The path with `REDACTED` for the values of parameters in its segments, as in `/shop;jsessionid=1A2B/cart`."""
    if _SEMICOLON not in path:
        return path
    segments = path.split(b"/")
    return b"/".join(
        b";".join(map(_redacted, segment.split(b";"))) if _SEMICOLON in segment else segment
        for segment in segments
    )


def _redacted(pair: bytes) -> bytes:
    """`name=value` or its redacted form; anything without a value as it is."""
    name, equals, value = pair.partition(b"=")
    if not (equals and value):
        return pair
    is_secret = _is_secret_name(name) if len(name) <= _MAX_CACHED_NAME else _decides(name)
    return name + b"=" + REDACTED if is_secret else pair


def _decides(name: bytes) -> bool:
    plain = unquote_to_bytes(name.replace(b"+", b" ")) if b"%" in name or b"+" in name else name
    return may_be_secret(plain.decode("latin-1"))


# 2 µs without; clients make names up, so both their number and their length are bounded.
_is_secret_name = lru_cache(maxsize=2048)(_decides)
