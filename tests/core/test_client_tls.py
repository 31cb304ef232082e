"""Who a client is by its certificate, how routes ask for it, and what upstreams are told."""

from __future__ import annotations

import pytest

from sidecar.core.client_tls import XFCC_NAMES, ShownCertificate, is_client, is_spiffe_id, xfcc_line

WEB = "spiffe://cluster.local/ns/shop/sa/web"


def certificate(
    *uris: str, dns: tuple[str, ...] = (), subject: str = "CN=web", sha256: str = "ab" * 32
) -> ShownCertificate:
    return ShownCertificate(sha256, subject, uris, dns)


@pytest.mark.parametrize(
    ("one", "identity"),
    [
        (certificate(WEB, dns=("web.shop",)), WEB),
        (certificate("https://web.shop/", WEB), WEB),
        (certificate("https://web.shop/", dns=("Web.Shop", "other")), "web.shop"),
        (certificate(), "CN=web"),
        (certificate(WEB, WEB + "2", dns=("web.shop",)), ""),
        (certificate("spiffe://cluster.local/ns/shop/../admin", dns=("web.shop",)), ""),
        (certificate("spiffe://Cluster.Local/ns"), ""),
        (certificate(subject=""), ""),
    ],
)
def test_identity_is_the_spiffe_id_else_a_dns_name_else_the_subject(
    one: ShownCertificate, identity: str
) -> None:
    assert one.identity == identity


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("spiffe://cluster.local", True),
        (WEB, True),
        ("spiffe://cluster.local/", False),
        ("spiffe://cluster.local/a//b", False),
        ("spiffe://cluster.local/a/.", False),
        ("spiffe://cluster.local/../a", False),
        ("spiffe://cluster.local/a/..b", True),
        ("spiffe://cluster.local/a%2fb", False),
        ("spiffe://cluster.local:80/a", False),
        ("spiffe://user@cluster.local/a", False),
        ("spiffe://cluster.local/a?b", False),
        ("SPIFFE://cluster.local/a", False),
        ("spiffe:///a", False),
        ("spiffe://cluster.local/" + "a" * 3000, False),
        ("spiffe://cluster.local/a\n", False),
    ],
)
def test_spiffe_id_has_one_form(text: str, is_one: bool) -> None:
    assert is_spiffe_id(text) is is_one


@pytest.mark.parametrize(
    ("asked", "identity", "takes"),
    [
        (WEB, WEB, True),
        ("spiffe://cluster.local/ns/shop", WEB, True),
        ("spiffe://cluster.local", WEB, True),
        ("spiffe://cluster.local/ns/sho", WEB, False),
        (WEB + "/deeper", WEB, False),
        ("spiffe://cluster", WEB, False),
        ("spiffe://other.local/ns/shop", WEB, False),
        ("web.shop", "web.shop", True),
        ("web.shop", "a.web.shop", False),
        ("web.shop", "web.shop/deeper", False),
        ("CN=web", "CN=web", True),
        ("CN=web", "", False),
        ("", "", False),
    ],
)
def test_route_takes_the_client_it_names_and_all_below_a_spiffe_id(
    asked: str, identity: str, takes: bool
) -> None:
    assert is_client((asked,), identity) is takes
    assert is_client(("spiffe://nobody", asked), identity) is takes


def test_nobody_is_taken_by_a_route_that_names_nobody() -> None:
    assert not is_client((), WEB)


def test_line_has_envoys_form() -> None:
    one = certificate(WEB, "https://web/", dns=("web.shop", "web"), subject='CN=web,O="Shop; Ltd"')
    assert xfcc_line(one, ("spiffe://cluster.local/ns/pay",)) == (
        b"X-Forwarded-Client-Cert: By=spiffe://cluster.local/ns/pay;Hash=" + b"ab" * 32 + b";"
        b'Subject="CN=web,O=\\"Shop; Ltd\\"";URI='
        + WEB.encode()
        + b";URI=https://web/;DNS=web.shop;DNS=web\r\n"
    )


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("a;By=b", b'URI="a;By=b"'),
        ('a",Hash=0', b'URI="a\\",Hash=0"'),
        ("a\\", b'URI="a\\\\"'),
        ("a\r\nX-Admin: 1", b'URI="a%0D%0AX-Admin: 1"'),
        ("ü", b"URI=%C3%BC"),
    ],
)
def test_who_names_a_certificate_ends_neither_its_value_nor_the_line(value: str, told: bytes) -> None:
    line = xfcc_line(certificate(value))
    assert line.endswith(b";" + told + b"\r\n")
    assert line.count(b"\r\n") == 1


def test_all_spellings_are_known() -> None:
    assert len(XFCC_NAMES) == 8
    assert {b"x-forwarded-client-cert", b"x_forwarded_client_cert", b"x-forwarded-client_cert"} <= XFCC_NAMES
