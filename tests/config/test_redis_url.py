"""Where a Redis is, as `share.redis.url` says it."""

import pytest

from sidecar.config.load import load_text
from sidecar.config.schema.redis_url import RedisKind, RedisPlace, parse
from sidecar.config.tell import render
from sidecar.core.snapshot import Scope


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://redis", RedisPlace(RedisKind.SERVER, False, (("redis", 6379),))),
        ("rediss://Redis.shop:6380/3", RedisPlace(RedisKind.SERVER, True, (("redis.shop", 6380),), "", 3)),
        (
            "redis://ada:p%40w@[::1]:1",
            RedisPlace(RedisKind.SERVER, False, (("::1", 1),), "", 0, "ada", "p@w"),
        ),
        (
            "rediss+sentinel://s1,s2:1/primary/2",
            RedisPlace(RedisKind.SENTINEL, True, (("s1", 26379), ("s2", 1)), "primary", 2),
        ),
        ("redis+cluster://a:1,b:2", RedisPlace(RedisKind.CLUSTER, False, (("a", 1), ("b", 2)))),
    ],
)
def test_a_url_names_one_place(url: str, place: RedisPlace) -> None:
    assert parse(url) == place


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://redis", "not a URL of a Redis"),
        ("redis:redis", "not a URL of a Redis"),
        ("redis+magic://redis", "not a URL of a Redis"),
        ("redis://[::1", "not a URL of a Redis"),
        ("redis://a,b", "several hosts"),
        ("redis://", "is no host with a port"),
        ("redis://a:0", "is no host with a port"),
        ("redis://a:65536", "is no host with a port"),
        ("redis://a/x", "the database 'x' is no number"),
        ("redis://a?db=1", "has keys of its own"),
        ("redis+sentinel://a", "know a primary by its name"),
        ("redis+cluster://a/1", "a cluster has no databases"),
    ],
)
def test_what_is_no_url_says_how_to_write_it(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse(url)


def test_files_stand_beside_the_configuration_and_a_password_is_told_to_nobody() -> None:
    text = """
version: 1
share:
  redis:
    url: rediss://ada:geheim@redis:6379
    tls: {ca: tls/ca.crt, certificate: {chain: a.crt, key: a.key}}
    fleet: orders
routes:
- name: pay
  upstream: http://127.0.0.1:1
  circuit_breaker: {scope: fleet}
"""
    snapshot = load_text(text, "/etc/sidecar/sidecar.yaml").snapshot
    redis = snapshot.share.redis
    assert redis is not None
    assert redis.tls is not None
    assert redis.tls.certificate is not None
    paths = redis.tls.ca, redis.tls.certificate.chain, redis.tls.certificate.key
    assert paths == ("/etc/sidecar/tls/ca.crt", "/etc/sidecar/a.crt", "/etc/sidecar/a.key")
    assert (redis.fleet, redis.prefix) == ("orders", "sidecar")
    assert snapshot.routes[0].breaker.scope is Scope.FLEET
    told = render.process(snapshot)
    assert "geheim" not in str(told)
    assert told["share.redis.fleet"] == "orders"
    with_file = text.replace("ada:geheim@", "").replace("fleet: orders", "password_file: pw")
    redis = load_text(with_file, "/etc/sidecar/sidecar.yaml").snapshot.share.redis
    assert redis is not None
    assert redis.password_file == "/etc/sidecar/pw"


def test_a_redis_that_no_breaker_asks_is_warned_of() -> None:
    text = "version: 1\nshare:\n  redis: {url: redis://redis}\nroutes:\n- {name: a, upstream: 'http://a:1'}\n"
    warnings = load_text(text).warnings
    assert [(one.line, one.message[:25]) for one in warnings] == [(3, "warning: nobody asks it: ")]
