"""Where a Redis is, as a URL: one server, a primary that sentinels know, or a cluster.

    redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]
    redis+sentinel://HOST[:PORT][,HOST[:PORT]…]/NAME[/DATABASE]
    redis+cluster://HOST[:PORT][,HOST[:PORT]…]

`rediss` in place of `redis` is TLS. The first form is that of every client of Redis; for the others no common one
exists.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final
from urllib.parse import unquote, urlsplit

from sidecar.config.schema import units
from sidecar.core.dataclass import dataclass

FORMS: Final = (
    "write redis://HOST:PORT, redis+sentinel://HOST:PORT,HOST:PORT/NAME or redis+cluster://HOST:PORT,HOST:PORT; "
    "rediss for TLS"
)
PORT: Final = 6379
SENTINEL_PORT: Final = 26379
WORD_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class RedisKind(Enum):
    SERVER = ""
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """What a URL says."""

    kind: RedisKind
    is_tls: bool
    hosts: tuple[tuple[str, int], ...]
    """Of the server, or of sentinels or nodes of a cluster."""
    name: str = ""
    """Of the primary, as the sentinels know it."""
    database: int = 0
    user: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        """Without user and password."""
        return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)


def parse(url: str) -> RedisPlace:
    """Raises: ValueError, which says how to write it."""
    scheme, separator, rest = url.partition("://")
    found = re.fullmatch(r"(rediss?)(?:\+(sentinel|cluster))?", scheme)
    if found is None or not separator:
        raise ValueError(f"not a URL of a Redis: {FORMS}")
    try:
        parts = urlsplit(f"//{rest}")
    except ValueError as error:  # such as a bracket that nobody closes
        raise ValueError(f"not a URL of a Redis ({error}): {FORMS}") from None
    if parts.query or parts.fragment:
        raise ValueError(
            "a `?` or `#` in the URL: what else there is to say has keys of its own beside `url`"
        )
    kind = RedisKind(found[2] or "")
    credentials, _, listed = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    hosts = _hosts(listed, SENTINEL_PORT if kind is RedisKind.SENTINEL else PORT)
    if kind is RedisKind.SERVER and len(hosts) > 1:
        raise ValueError(f"several hosts: {FORMS}")
    name, database = _path(kind, parts.path.strip("/"))
    return RedisPlace(
        kind, found[1] == "rediss", hosts, name, database, unquote(user) or None, unquote(password) or None
    )


def checked(url: str) -> str:
    """Raises: ValueError, as above."""
    parse(url)
    return url


def word(text: str) -> str:
    """Raises: ValueError for what cannot be part of a key."""
    if not re.fullmatch(WORD_PATTERN, text):
        raise ValueError(
            "give 1 to 100 letters, digits, dots, dashes and underscores, a letter or digit first"
        )
    return text


def _hosts(listed: str, default: int) -> tuple[tuple[str, int], ...]:
    found = []
    for item in listed.split(","):
        parsed = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?", item)
        port = default if parsed is None or parsed[3] is None else int(parsed[3])
        if parsed is None or not 0 < port < 65536:
            raise ValueError(f"{item[:100]!r} is no host with a port: {FORMS}")
        found.append((parsed[1] or units.parse_host(parsed[2]), port))
    return tuple(found)


def _path(kind: RedisKind, path: str) -> tuple[str, int]:
    """The primary's name, and the database."""
    name, database = "", path
    if kind is RedisKind.SENTINEL:
        name, _, database = path.partition("/")
        if not name:
            raise ValueError("sentinels know a primary by its name: write …/NAME behind their addresses")
    if not database:
        return name, 0
    if kind is RedisKind.CLUSTER:
        raise ValueError("a cluster has no databases: leave out what is behind the addresses")
    if not re.fullmatch(r"[0-9]{1,4}", database):
        raise ValueError(f"the database {database[:100]!r} is no number: write …/0, or leave it out")
    return name, int(database)
