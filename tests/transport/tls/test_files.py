"""What a PEM file may be, and what the message says of one that cannot be used."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from sidecar.cli.dev_certificates import make_ca, make_pair
from sidecar.core.snapshot import CertificateFiles
from sidecar.transport.tls import files
from sidecar.transport.tls.files import (
    MissingFile,
    TlsFileError,
    client_context,
    load_pair,
    server_context,
    trust,
)
from tests.support.certificates import Certificates


def load(pair: CertificateFiles, *, is_server: bool = True) -> files.OwnCertificate:
    return load_pair(server_context() if is_server else client_context(), pair, is_server=is_server)


@pytest.mark.parametrize("is_server", [True, False])
def test_a_good_pair_is_loaded_and_known(certificates: Certificates, is_server: bool) -> None:
    own = load(certificates.pair("a", "a.test", "spiffe://d/a"), is_server=is_server)
    assert own.certificate["subjectAltName"] == (("DNS", "a.test"), ("URI", "spiffe://d/a"))
    assert own.expires == ssl.cert_time_to_seconds(own.certificate["notAfter"])
    assert not own.is_key_open


def test_a_chain_may_have_what_is_between_it_and_its_ca(certificates: Certificates) -> None:
    between = make_ca("between", issuer=certificates.authority)
    assert load(certificates.write("a", make_pair(between, ["a.test"]), between))
    assert load(certificates.write("b", make_pair(between, ["a.test"]), between, certificates.authority))
    assert load(certificates.self_signed("c", "a.test"))


def _of_another_key(certificates: Certificates) -> CertificateFiles:
    return CertificateFiles(certificates.pair("a", "a").chain, certificates.pair("b", "b").key)


def _in_disorder(certificates: Certificates) -> CertificateFiles:
    stranger = make_ca("stranger")
    return certificates.write("a", make_pair(certificates.authority, ["a.test"]), stranger)


def _with_password(certificates: Certificates) -> CertificateFiles:
    pair = certificates.pair("a", "a.test")
    key = serialization.load_pem_private_key(Path(pair.key).read_bytes(), None)
    lock = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    Path(pair.key).write_bytes(key.private_bytes(serialization.Encoding.PEM, form, lock))
    return pair


def _without(part: str, text: str) -> Callable[[Certificates], CertificateFiles]:
    def make(certificates: Certificates) -> CertificateFiles:
        pair = certificates.pair("a", "a.test")
        Path(getattr(pair, part)).write_text(text)
        return pair

    return make


def _cut(certificates: Certificates) -> CertificateFiles:
    pair = certificates.pair("a", "a.test")
    text = Path(pair.chain).read_text()
    Path(pair.chain).write_text(text[:100] + text[140:])
    return pair


BAD = {
    "another_key": (_of_another_key, "DIR/b.key: the key is not that of the certificate in DIR/a.crt"),
    "expired": (
        lambda made: made.expired("a", "a"),
        "DIR/a.crt: the certificate cannot be used: it has expired",
    ),
    "future": (
        lambda made: made.future("a", "a"),
        "DIR/a.crt: the certificate cannot be used: it is not valid yet",
    ),
    "disorder": (
        _in_disorder,
        "DIR/a.crt: its certificates do not lead from one to the next: write the leaf first, then who signed it",
    ),
    "other_purpose": (
        lambda made: made.pair("a", "a", is_server=False),
        "DIR/a.crt: the certificate cannot be used: it is not made for this purpose (extended key usage)",
    ),
    "password": (
        _with_password,
        "DIR/a.key: the key is encrypted: write it without a password (`openssl pkey -in … -out …`)",
    ),
    "no_certificate": (
        _without("chain", "hello"),
        "DIR/a.crt: there is no certificate in it (a PEM block `CERTIFICATE`)",
    ),
    "no_key": (_without("key", ""), "DIR/a.key: there is no private key in it (a PEM block `PRIVATE KEY`)"),
    "key_cut": (
        _without("key", "-----BEGIN PRIVATE KEY-----\nMIG\n-----END PRIVATE KEY-----\n"),
        "DIR/a.crt with DIR/a.key: cannot be loaded (not a known form)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_pair_is_refused_with_its_file_and_the_remedy(
    certificates: Certificates, tmp_path: Path, case: str
) -> None:
    make, message = BAD[case]
    with pytest.raises(TlsFileError) as caught:
        load(make(certificates))
    assert str(caught.value) == message.replace("DIR", str(tmp_path))


def test_a_certificate_that_cannot_be_read_is_named(certificates: Certificates) -> None:
    pair = _cut(certificates)
    with pytest.raises(TlsFileError, match=r"a\.crt with .*a\.key: cannot be loaded"):
        load(pair)
    with pytest.raises(TlsFileError, match=r"a\.crt: a certificate in it cannot be read"):
        trust(client_context(), pair.chain)


def test_a_client_may_have_a_certificate_that_is_for_clients_alone(certificates: Certificates) -> None:
    assert load(certificates.pair("a", "a.test", is_server=False), is_server=False)
    with pytest.raises(TlsFileError, match="not made for this purpose"):
        load(certificates.pair("b", "a.test", is_client=False), is_server=False)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(TlsFileError, match="pipe: it is no regular file"):
        files.certificates_in(str(pipe))
    with pytest.raises(TlsFileError, match="cannot be read: Is a directory"):
        files.certificates_in(str(tmp_path))
    with pytest.raises(MissingFile, match=r"none\.crt: there is no such file"):
        files.certificates_in(str(tmp_path / "none.crt"))


def test_a_file_has_a_size_that_it_may_have(tmp_path: Path) -> None:
    block = "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n"
    at_limit = tmp_path / "at_limit.crt"
    at_limit.write_text(block + "#" * (files.MAX_FILE_BYTES - len(block)))
    assert len(files.certificates_in(str(at_limit))) == 1
    at_limit.write_text(at_limit.read_text() + "#")
    with pytest.raises(TlsFileError, match=r"at_limit\.crt: it has more than 1048576 bytes"):
        files.certificates_in(str(at_limit))


def test_a_key_that_everybody_may_read_is_known(certificates: Certificates) -> None:
    pair = certificates.pair("a", "a.test")
    os.chmod(pair.key, 0o640)
    assert not load(pair).is_key_open
    os.chmod(pair.key, 0o604)
    assert load(pair).is_key_open


def test_no_message_and_no_repr_has_a_byte_of_the_key(certificates: Certificates) -> None:
    pair = certificates.pair("a", "a.test")
    secret = Path(pair.key).read_text().splitlines()[1]
    told = [repr(load(pair))]
    for make, _ in BAD.values():
        with pytest.raises(TlsFileError) as caught:
            load(make(certificates))
        told.append(repr(caught.value))
    assert not any(secret[:12] in text for text in told)


def test_a_system_without_cas_takes_those_of_certifi(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, certificates: Certificates
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "nowhere"))
    context = client_context()
    trust(context, None)
    assert context.cert_store_stats()["x509_ca"] > 50
    monkeypatch.setitem(__import__("sys").modules, "certifi", None)
    with pytest.raises(TlsFileError, match="this system has no certificates of CAs: install the package"):
        trust(client_context(), None)
    monkeypatch.setenv("SSL_CERT_FILE", certificates.ca)
    context = client_context()
    trust(context, None)
    assert context.cert_store_stats()["x509_ca"] == 1


def test_contexts_speak_no_old_version_and_neither_compress_nor_renegotiate() -> None:
    for context in (client_context(), server_context()):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.options & ssl.OP_NO_RENEGOTIATION
    assert client_context().verify_mode is ssl.CERT_REQUIRED
    assert not client_context().hostname_checks_common_name


def test_a_handshake_with_a_client_makes_one_ticket() -> None:
    assert server_context().num_tickets == 1
