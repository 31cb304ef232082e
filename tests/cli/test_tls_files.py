"""`check`, `explain` and `certs` about TLS."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.core.snapshot import CertificateFiles
from sidecar.transport.tls.files import client_context, load_pair, server_context, trust
from tests.support.certificates import Certificates

TEXT = """\
version: 1
listeners:
  inbound:
    address: 127.0.0.1:0
    tls:
      certificates: [{chain: a.crt, key: a.key}, {chain: b.crt, key: b.key}]
      client_ca: ca.crt
      client: request
upstreams:
  bank:
    endpoints: ["https://api.bank.test", "https://other.bank.test:8443"]
    protocol: auto
    tls: {ca: ca.crt, certificate: {chain: us.crt, key: us.key}}
  known:
    endpoints: ["127.0.0.1:8443"]
    tls: {ca: ca.crt, identities: ["spiffe://shop/ns/a", "spiffe://shop/ns/b"]}
routes:
- {name: bank, upstream: bank, match: {path: {prefix: /bank}}}
- {name: known, upstream: known}
"""


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    made = Certificates(tmp_path)
    for stem in ("a", "b", "us"):
        made.pair(stem, f"{stem}.test")
    (tmp_path / "sidecar.yaml").write_text(TEXT)
    return made


def check(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["check", str(folder / "sidecar.yaml")])
    out, err = capsys.readouterr()
    return code, out.replace(str(folder), "DIR"), err.replace(str(folder), "DIR")


def test_good_files_are_good(made: Certificates, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path, capsys) == (0, "DIR/sidecar.yaml: ok\n", "")


def test_each_bad_file_is_told_with_its_key(
    made: Certificates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.expired("a", "a.test")
    os.replace(made.pair("c", "c.test").key, tmp_path / "b.key")
    made.pair("us", "us.test", is_client=False)
    (tmp_path / "ca.crt").write_text("nothing")
    code, out, err = check(tmp_path, capsys)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "DIR/sidecar.yaml: listeners.inbound.tls.certificates[0]: DIR/a.crt: the certificate cannot be used: it has "
        "expired",
        "DIR/sidecar.yaml: listeners.inbound.tls.certificates[1]: DIR/b.key: the key is not that of the certificate "
        "in DIR/b.crt",
        "DIR/sidecar.yaml: listeners.inbound.tls.client_ca: DIR/ca.crt: there is no certificate in it (a PEM block "
        "`CERTIFICATE`)",
        "DIR/sidecar.yaml: upstreams.bank.tls.ca: DIR/ca.crt: there is no certificate in it (a PEM block "
        "`CERTIFICATE`)",
        "DIR/sidecar.yaml: upstreams.bank.tls.certificate: DIR/us.crt: the certificate cannot be used: it is not "
        "made for this purpose (extended key usage)",
        "DIR/sidecar.yaml: upstreams.known.tls.ca: DIR/ca.crt: there is no certificate in it (a PEM block "
        "`CERTIFICATE`)",
    ]


def test_what_is_not_here_may_be_there_and_what_is_odd_is_warned_of(
    made: Certificates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.key").unlink()
    os.chmod(tmp_path / "b.key", 0o644)
    code, out, err = check(tmp_path, capsys)
    assert (code, out) == (0, "DIR/sidecar.yaml: ok\n")
    assert err.splitlines() == [
        "DIR/sidecar.yaml: warning: listeners.inbound.tls.certificates[0]: DIR/a.key: there is no such file, which "
        "`run` would not bear",
        "DIR/sidecar.yaml: warning: listeners.inbound.tls.certificates[1]: DIR/b.key: every user of this system may "
        "read the key: chmod o= it",
    ]


def test_explain_tells_what_is_asked_of_the_upstream(
    made: Certificates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "sidecar.yaml")
    assert main(["explain", file, "http://x/bank"]) == 0
    told = capsys.readouterr().out.replace(str(tmp_path), "DIR")
    assert (
        "→ upstream bank (weight 1): api.bank.test:443, other.bank.test:8443, by TLS: its certificate must be for "
        "api.bank.test or other.bank.test, and signed by DIR/ca.crt; DIR/us.crt is shown if asked for; h2 or "
        "http/1.1 by ALPN"
    ) in told
    assert main(["explain", file, "http://x/"]) == 0
    told = capsys.readouterr().out.replace(str(tmp_path), "DIR")
    assert (
        "by TLS: its certificate must be for one of spiffe://shop/ns/a, spiffe://shop/ns/b, and signed by "
        "DIR/ca.crt; no certificate is shown; http/1.1 by ALPN"
    ) in told


# certs


def test_certs_makes_what_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tls"
    asked = ["certs", str(folder), "--for", "payments.test", "127.0.0.1", "--for", "spiffe://shop/ns/orders"]
    assert main(asked) == 0
    told = capsys.readouterr()
    names = [
        "ca.crt",
        "ca.key",
        "payments.test.crt",
        "payments.test.key",
        "shop-ns-orders.crt",
        "shop-ns-orders.key",
    ]
    assert told.out.splitlines() == [str(folder / name) for name in names]
    assert told.err == "For development alone: whoever has ca.key can be anybody.\n"
    server = load_pair(server_context(), _pair(folder, "payments.test"), is_server=True)
    client = load_pair(client_context(), _pair(folder, "shop-ns-orders"), is_server=False)
    assert server.certificate["subjectAltName"] == (("DNS", "payments.test"), ("IP Address", "127.0.0.1"))
    assert client.certificate["subjectAltName"] == (("URI", "spiffe://shop/ns/orders"),)
    assert (("organizationName", "sidecar for development only"),) in server.certificate["subject"]
    trust(client_context(), str(folder / "ca.crt"))
    for key in folder.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_certs_goes_on_with_its_ca_and_touches_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certs", str(tmp_path), "--for", "a.test"]) == 0
    before = (tmp_path / "ca.crt").read_bytes()
    assert main(["certs", str(tmp_path), "--for", "b.test", "--days", "1"]) == 0
    assert (tmp_path / "ca.crt").read_bytes() == before
    other = tmp_path / "other"
    other.mkdir()
    Certificates(other)
    (other / "ca.key").write_bytes((tmp_path / "a.test.key").read_bytes())
    (other / "ca.crt").write_text("mine")
    capsys.readouterr()
    assert main(["certs", str(other), "--for", "a.test"]) == 1
    assert "ca.crt with" in capsys.readouterr().err
    assert (other / "ca.crt").read_text() == "mine"


def test_certs_says_what_it_needs_and_what_makes_no_sense(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["certs", str(tmp_path), "--for", "a.test", "--days", "0"]) == 2
    assert main(["certs", str(tmp_path), "--for", "ca"]) == 1
    assert "'ca' names no file: begin with another name" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "sidecar.cli.dev_certificates")
    monkeypatch.delattr(sys.modules["sidecar.cli"], "dev_certificates", raising=False)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert main(["certs", str(tmp_path), "--for", "a.test"]) == 2
    message = "sidecar certs needs the package cryptography: pip install 'sidecar-proxy[certs]'\n"
    assert capsys.readouterr().err == message


def _pair(folder: Path, stem: str) -> CertificateFiles:
    return CertificateFiles(str(folder / f"{stem}.crt"), str(folder / f"{stem}.key"))


def test_host_that_no_certificate_is_for_is_warned_of(
    made: Certificates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.pair("b", "b.test", "*.b.test")
    hosts = '[a.test, "a.test:8443", www.a.test, x.b.test, y.x.b.test, "*.b.test", "*.a.test", "*"]'
    text = TEXT.replace("match: {path: {prefix: /bank}}", f"match: {{hosts: {hosts}}}")
    (tmp_path / "sidecar.yaml").write_text(text)
    code, out, err = check(tmp_path, capsys)
    assert (code, out) == (0, "DIR/sidecar.yaml: ok\n")
    refused = [line.partition("no certificate is for ")[2].partition(",")[0] for line in err.splitlines()]
    assert refused == ["www.a.test", "y.x.b.test", "*.a.test"]
    made.pair("a", "spiffe://shop/ns/a")
    assert check(tmp_path, capsys) == (0, "DIR/sidecar.yaml: ok\n", "")


def explained(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> list[str]:
    main(["explain", str(folder / "sidecar.yaml"), *more])
    return capsys.readouterr().out.replace(str(folder), "DIR").splitlines()


@pytest.mark.parametrize(("host", "stem"), [("a.test", "a"), ("B.test:8443", "b"), ("elsewhere", "a")])
def test_explain_says_which_certificate_a_name_gets_and_what_is_asked_of_the_client(
    made: Certificates, tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str, stem: str
) -> None:
    lines = explained(tmp_path, capsys, f"https://{host}/")
    assert lines[1].startswith(f"→ certificate DIR/{stem}.crt, for {stem}.test, good until 2")
    assert lines[2] == (
        "→ TLS 1.2 at least, h2 or http/1.1 by ALPN, the client may show a certificate, which has to be signed by "
        "DIR/ca.crt"
    )
    (tmp_path / "a.key").write_text("nothing")
    assert "files cannot be used" in explained(tmp_path, capsys, f"https://{host}/")[1]


def test_explain_asks_as_a_client(
    made: Certificates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TEXT.replace("match: {path: {prefix: /bank}}", 'match: {client: ["spiffe://shop/ns/a"]}')
    (tmp_path / "sidecar.yaml").write_text(text)
    assert "→ route known" in explained(tmp_path, capsys, "/")[3]
    assert "→ route bank" in explained(tmp_path, capsys, "--client", "spiffe://shop/ns/a/sa/web", "/")[3]
