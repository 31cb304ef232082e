"""A client of Redis for one `share.redis`: which of its forms, TLS, and who the sidecar is there.

The only module that knows the package `redis`, which is an extra: it is imported when a fleet is configured. Every
retry, back-off and time-out is ours (`store.py`, `link.py`): the client tries each command once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Any, Final

from sidecar.config.schema.redis_url import RedisKind, RedisPlace, parse
from sidecar.core.dataclass import dataclass
from sidecar.core.snapshot import RedisPolicy, RedisTls
from sidecar.runtime.fleet.failed import Lack, StoreFailed

CONNECT_SECONDS: Final = 1.0
"""For a connection, its handshake and its password."""
SENTINEL_SECONDS: Final = 0.4
"""For the answer of one sentinel, before the next one is asked."""
CLOSE_SECONDS: Final = 1.0
MAX_CONNECTIONS: Final = 4
"""One waits for news, one writes, one beats, one asks for the states of breakers that have joined."""
MAX_PASSWORD_BYTES: Final = 4096
MAX_ANSWER_BYTES: Final = 9 * 1024 * 1024
"""Of one answer: more than the sixteen longest entries of a fleet's stream."""
TOO_LONG: Final = "an answer is too long"


@dataclass(frozen=True, slots=True)
class Opened:
    """A client, and what it asks where its Redis is."""

    client: Any
    """`Redis` or `RedisCluster` of `redis.asyncio`."""
    sentinels: Sequence[Any] = ()

    async def close(self) -> None:
        """Let go of all connections, also where nobody answers any more."""
        for one in (self.client, *self.sentinels):
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await one.aclose()


async def open_client(policy: RedisPolicy) -> Opened:
    """A client that connects when it is first used.

    Raises:
        StoreFailed: the package is not installed, or a file of `tls` cannot be used.
    """
    place = parse(policy.url)
    try:
        # Importing it takes some tens of milliseconds; so do the certificates of the system.
        context = await asyncio.to_thread(_prepare, policy.tls or RedisTls(), is_tls=place.is_tls)
    except ImportError:
        told = "the package `redis` is not installed: pip install 'sidecar-proxy[redis]'"
        raise StoreFailed(Lack.NOT_INSTALLED, told) from None
    except (OSError, ssl.SSLError) as error:
        raise StoreFailed(Lack.TLS, f"a file of `share.redis.tls` cannot be used: {error}") from None
    return _client(place, policy, context)


def _prepare(tls: RedisTls, *, is_tls: bool) -> ssl.SSLContext | None:
    import hiredis  # noqa: F401
    import redis.asyncio
    import redis.asyncio.cluster
    import redis.asyncio.sentinel  # noqa: F401

    if not is_tls:
        return None
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate.chain, tls.certificate.key)
    return context


def _client(place: RedisPlace, policy: RedisPolicy, context: ssl.SSLContext | None) -> Opened:
    from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import (
        Sentinel,
        SentinelConnectionPool,
        SentinelManagedConnection,
        SentinelManagedSSLConnection,
    )
    from redis.backoff import NoBackoff

    common: dict[str, Any] = {
        "socket_timeout": None,  # whoever asks says how long it may take, and some ask to wait
        "socket_connect_timeout": CONNECT_SECONDS,
        "protocol": 2,
        "credential_provider": _credentials(place, policy.password_file),
    }
    once: dict[str, Any] = {"retry": Retry(NoBackoff(), 0)}
    if place.kind is RedisKind.CLUSTER:
        return Opened(_cluster(place, context, common | once))
    common |= once
    if place.kind is RedisKind.SERVER:
        (host, port), *_ = place.hosts
        of_server = _made_ours(Connection if context is None else SSLConnection, context)
        pool = ConnectionPool(
            connection_class=of_server,
            max_connections=MAX_CONNECTIONS,
            host=host,
            port=port,
            db=place.database,
            **common,
        )
        return Opened(Redis.from_pool(pool))
    common["db"] = place.database
    made: Any = Sentinel  # which has no types
    sentinel = made([], **common)
    # Not those that it would make: each would make a context for TLS of its own, on the loop.
    of_sentinel = _made_ours(Connection if context is None else SSLConnection, context)
    bare = {
        **once,
        "protocol": 2,
        "socket_timeout": SENTINEL_SECONDS,
        "socket_connect_timeout": SENTINEL_SECONDS,
    }
    sentinel.sentinels = [
        Redis.from_pool(ConnectionPool(connection_class=of_sentinel, host=host, port=port, **bare))
        for host, port in place.hosts
    ]
    of_primary = _made_ours(
        SentinelManagedConnection if context is None else SentinelManagedSSLConnection, context
    )
    primary = sentinel.master_for(
        place.name,
        connection_pool_class=SentinelConnectionPool,
        connection_class=of_primary,
        max_connections=MAX_CONNECTIONS,
    )
    return Opened(primary, sentinel.sentinels)


def _cluster(place: RedisPlace, context: ssl.SSLContext | None, common: dict[str, Any]) -> Any:
    from redis.asyncio import Connection, RedisCluster, SSLConnection
    from redis.asyncio.cluster import ClusterNode

    nodes = [ClusterNode(host, port) for host, port in place.hosts]
    client = RedisCluster(
        startup_nodes=nodes, ssl=context is not None, max_connections=MAX_CONNECTIONS, **common
    )
    ours = _made_ours(Connection if context is None else SSLConnection, context)
    client.connection_kwargs["connection_class"] = ours
    for node in client.startup_nodes:
        node.connection_class = ours
    return client


def _made_ours(base: Any, context: ssl.SSLContext | None) -> Any:
    """Connections of this kind that read no more than `MAX_ANSWER_BYTES` for an answer, and use `context`: they would
    each make their own, on the loop, and trust those whom the system trusts besides."""
    parser = _bounded_parser()

    class Ours(base):  # type: ignore[misc]
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.set_parser(parser)
            if context is not None:
                self.ssl_context.context = context

    return Ours


def _bounded_parser() -> Any:
    """What reads answers as the package does by itself, but no long ones: what lies in a Redis may be anybody's."""
    from redis._parsers import _AsyncHiredisParser
    from redis.exceptions import ConnectionError, InvalidResponse

    base: Any = _AsyncHiredisParser  # whose types leave out that it is connected

    class Bounded(base):  # type: ignore[misc]
        __slots__ = ("_left",)

        async def read_response(self, *given: Any, **named: Any) -> Any:
            self._left = MAX_ANSWER_BYTES
            return await super().read_response(*given, **named)

        async def read_from_socket(self) -> bool:
            data = await self._stream.read(self._read_size)
            self._left -= len(data)
            if self._left < 0:
                raise InvalidResponse(f"{TOO_LONG}: more than {MAX_ANSWER_BYTES} bytes")
            if not data:
                raise ConnectionError("the Redis has hung up")
            self._reader.feed(data)
            return True

    return Bounded


def _credentials(place: RedisPlace, password_file: str | None) -> Any:
    """User and password, read anew for each connection, so that a new password needs no restart."""
    from redis.credentials import CredentialProvider

    if password_file is None and place.password is None and place.user is None:
        return None

    class Credentials(CredentialProvider):
        def get_credentials(self) -> tuple[str] | tuple[str, str]:
            password = place.password if password_file is None else _password(password_file)
            return (password or "",) if place.user is None else (place.user, password or "")

        async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
            return await asyncio.to_thread(self.get_credentials)

    return Credentials()


def _password(path: str) -> str:
    # An error of the package's own: with any other one the connection would go on without a password.
    from redis.exceptions import AuthenticationError

    try:
        with open(path, "rb") as file:
            found = file.read(MAX_PASSWORD_BYTES + 1)
    except OSError as error:
        raise AuthenticationError(f"`share.redis.password_file` cannot be read: {error}") from None
    if len(found) > MAX_PASSWORD_BYTES:
        raise AuthenticationError(
            f"`share.redis.password_file` has more than {MAX_PASSWORD_BYTES} bytes: {path}"
        )
    return found.decode("utf-8", "replace").rstrip("\r\n")
