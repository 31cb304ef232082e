"""TLS as the file writes it: certificates, who signs them, and what is asked of the other side.

Reads no file: paths are made whole in `load/tls_rules.py`, and what stands in them is looked at where it is used.
"""

from __future__ import annotations

from sidecar.config.schema import values
from sidecar.config.schema.form import TEXT_LIST, Form
from sidecar.config.schema.section import Section, key, required
from sidecar.core import snapshot as core


class CertificateSection(Section):
    built_in = core.CertificateFiles("", "")

    chain: values.FileName = required(
        "A PEM file: the certificate, then those that lead to its CA. Relative to the configuration file.",
        examples=["/var/run/secrets/tls/tls.crt"],
        fills="chain",
    )
    key: values.FileName = required(
        "A PEM file: its private key, not encrypted. Relative to the configuration file.",
        examples=["/var/run/secrets/tls/tls.key"],
        fills="key",
    )


def _stored(sections: list[CertificateSection]) -> tuple[core.CertificateFiles, ...]:
    return tuple(core.CertificateFiles(section.chain, section.key) for section in sections)


def _written(pairs: tuple[core.CertificateFiles, ...]) -> list[dict[str, str]]:
    return [{"chain": pair.chain, "key": pair.key} for pair in pairs]


class ListenerTlsSection(Section):
    built_in = core.ListenerTls()

    certificate: CertificateSection | None = key(
        "The only one; either this or `certificates`.", fills="certificate"
    )
    certificates: list[CertificateSection] | None = key(
        "Several: a client gets the one that has the name it asks for (SNI), the first where none has it.",
        fills="certificates",
        form=Form(_stored, _written),
    )
    client_ca: values.FileName | None = key(
        "A PEM file: who signs the certificates of clients. Relative to the configuration file. Needed for `client`.",
        fills="client_ca",
    )
    client: values.ClientCertificateName | None = key(
        "Whether clients are asked for a certificate: `off`, `request`, which takes one without but not one with a "
        "bad one, or `require`.",
        fills="client",
    )
    minimum_version: values.TlsVersionName | None = key(
        "The oldest version that is spoken.", fills="minimum_version"
    )


class UpstreamTlsSection(Section):
    built_in = core.UpstreamTls()

    ca: values.FileName | None = key(
        "A PEM file: who signs the upstream's certificates. Relative to the configuration file. Unset: those whom "
        "the system trusts.",
        examples=["/var/run/secrets/tls/ca.crt"],
        fills="ca",
        form=Form(unset="those of the system"),
    )
    server_name: values.ServerName | None = key(
        "The name that is asked for (SNI) and that its certificate must have. Unset: that of the endpoint.",
        fills="server_name",
    )
    certificate: CertificateSection | None = key(
        "Who the sidecar is, for an upstream that asks (mutual TLS).", fills="certificate"
    )
    identities: list[values.NonEmptyText] | None = key(
        "One of them must stand in its certificate, in place of the name: SPIFFE IDs, other URIs, or DNS names. The "
        "chain is verified all the same.",
        examples=[["spiffe://cluster.local/ns/shop/sa/payments"]],
        fills="identities",
        form=TEXT_LIST,
    )
    alpn: list[values.AlpnName] | None = key(
        "Protocols to offer in the handshake, in this order. Unset: what `protocol` says, `h2` and `http/1.1` with "
        "`auto`.",
        examples=[["h2", "http/1.1"]],
        fills="alpn",
        form=TEXT_LIST,
    )
