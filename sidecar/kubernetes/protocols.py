"""What a port speaks, as far as its name, its `appProtocol` and its number tell.

A sidecar's inbound listener reads HTTP. A port that is sent there although it speaks MySQL does not work any more, so
whatever is known to be something else is left as it is.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum, auto
from typing import Any, Final

from sidecar.core.dataclass import dataclass


class Speaks(Enum):
    HTTP1 = auto()
    HTTP2 = auto()
    """In clear text, from the first byte on: gRPC."""
    OTHER = auto()
    """TLS or a protocol of its own."""
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Judged:
    """What a port speaks, and by what that is known."""

    speaks: Speaks
    why: str = ""

    @property
    def may_be_http(self) -> bool:
        return self.speaks is not Speaks.OTHER


UNKNOWN: Final = Judged(Speaks.UNKNOWN)
OPAQUE_PORTS: Final = frozenset(
    {
        25,
        587,
        1433,
        1521,
        1883,
        2181,
        3306,
        4222,
        4444,
        5432,
        5671,
        5672,
        6379,
        6380,
        9042,
        9092,
        9300,
        11211,
        27017,
    }
)
"""Mail, databases, queues: protocols that are no HTTP, many of which wait for the server to speak first."""
TLS_PORTS: Final = frozenset({443, 6443, 8443, 9443, 10250})
_WORDS: Final = {
    Speaks.HTTP1: {"http", "http1", "ws", "grpc-web"},
    Speaks.HTTP2: {"http2", "h2c", "grpc"},
    Speaks.OTHER: {
        *("https", "tls", "ssl", "wss", "grpcs", "h2", "tcp", "udp", "sctp"),
        *(
            "mysql",
            "mariadb",
            "postgres",
            "postgresql",
            "pgsql",
            "mssql",
            "oracle",
            "redis",
            "mongo",
            "mongodb",
        ),
        *("amqp", "amqps", "rabbitmq", "kafka", "nats", "mqtt", "memcache", "memcached", "cassandra", "cql"),
        *("zookeeper", "ldap", "ldaps", "smtp", "imap", "ftp", "ssh", "dns", "thrift"),
    },
}
"""The first word of a port's name (`grpc-api`), as Istio reads it; and `appProtocol` without `kubernetes.io/`."""
_BY_WORD: Final = {word: speaks for speaks, words in _WORDS.items() for word in words}


def judged(name: Any, app_protocol: Any, numbers: Collection[Any], opaque: Collection[int]) -> Judged:
    """Of a port: `appProtocol` knows best, then the name, then its numbers. `opaque` are numbers of a user's."""
    for number in numbers:
        if number in opaque:
            return Judged(Speaks.OTHER, f"{number} is among the opaque ports")
    for what, text in (("appProtocol", app_protocol), ("name", name)):
        found = _of_word(text)
        if found is not None:
            return Judged(found, f"its {what} is {text}")
    for number in numbers:
        if number in OPAQUE_PORTS:
            return Judged(Speaks.OTHER, f"{number} is a port of a protocol that is no HTTP")
        if number in TLS_PORTS:
            return Judged(Speaks.OTHER, f"{number} is a port of TLS")
    return UNKNOWN


def _of_word(text: Any) -> Speaks | None:
    if not isinstance(text, str) or not text:
        return None
    word = text.lower().removeprefix("kubernetes.io/")
    return _BY_WORD.get(word) or _BY_WORD.get(
        "grpc-web" if word.startswith("grpc-web-") else word.partition("-")[0]
    )
