"""Where breakers of several replicas meet, as the file writes it. Reads no file; see `load/share_rules.py`."""

from __future__ import annotations

from sidecar.config.schema import values
from sidecar.config.schema.section import Section, key, required
from sidecar.config.schema.tls import CertificateSection
from sidecar.core import snapshot as core


class RedisTlsSection(Section):
    built_in = core.RedisTls()

    ca: values.FileName | None = key(
        "A PEM file: who signs its certificate. Relative to the configuration file. Unset: those whom the system "
        "trusts.",
        examples=["/var/run/secrets/redis/ca.crt"],
        fills="ca",
    )
    certificate: CertificateSection | None = key(
        "Who the sidecar is, for a Redis that asks (mutual TLS).", fills="certificate"
    )


class RedisSection(Section):
    built_in = core.RedisPolicy("")

    url: values.RedisUrl = required(
        "Redis 6.2 or Valkey: `redis://HOST:PORT/DATABASE`, `redis+sentinel://HOST:PORT,HOST:PORT/NAME` for what "
        "sentinels call NAME, or `redis+cluster://HOST:PORT,HOST:PORT`; `rediss` in place of `redis` is TLS.",
        examples=["redis://redis:6379", "rediss+sentinel://s1:26379,s2:26379/primary"],
        fills="url",
    )
    password_file: values.FileName | None = key(
        "A file that holds the password, relative to the configuration file; read at each connection.",
        examples=["/var/run/secrets/redis/password"],
        fills="password_file",
    )
    tls: RedisTlsSection | None = key("For `rediss`.", fills="tls")
    prefix: values.RedisWord | None = key("Before every key.", fills="prefix")
    fleet: values.RedisWord | None = key(
        "Replicas of one name act as one. Unset: the name of the service (`telemetry.service_name`).",
        examples=["orders"],
        fills="fleet",
    )


class ShareSection(Section):
    built_in = core.Share()

    redis: RedisSection | None = key(
        "By Redis or Valkey. Where it is down or slow each replica goes on alone.", fills="redis"
    )
