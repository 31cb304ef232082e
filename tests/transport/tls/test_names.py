"""Which names a certificate has, and who that makes its owner."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.transport.tls import names


def certificate(*alternative: tuple[str, str], common_name: str = "somebody") -> dict[str, Any]:
    subject = ((("organizationName", "Shop, Ltd"),), (("commonName", common_name),))
    return {"subject": subject, "subjectAltName": alternative}


@pytest.mark.parametrize(
    ("pattern", "host", "is_covered"),
    [
        ("payments.test", "payments.test", True),
        ("PAYMENTS.test", "payments.test", True),
        ("payments.test.", "payments.test", True),
        ("payments.test", "evil-payments.test", False),
        ("payments", "payments", True),
        ("*.shop.test", "a.shop.test", True),
        ("*.shop.test", "shop.test", False),
        ("*.shop.test", "a.b.shop.test", False),
        ("*.shop.test", ".shop.test", False),
        ("*.test", "shop.test", False),  # a whole top-level domain
        ("*", "shop", False),
        ("a*.shop.test", "ab.shop.test", False),
        ("*a.shop.test", "ba.shop.test", False),
        ("a.*.test", "a.shop.test", False),
        ("*.*.test", "a.b.test", False),
        ("*.shop.test", "*.shop.test", True),  # nobody may ask for it: a host name has no star
    ],
)
def test_a_pattern_covers_one_whole_leftmost_label(pattern: str, host: str, is_covered: bool) -> None:
    assert names.covers(pattern, host) is is_covered


@pytest.mark.parametrize(
    ("host", "is_named"),
    [
        ("a.test", True),
        ("A.TEST", True),
        ("a.test.", True),
        ("somebody", False),  # the common name says nothing
        ("10.0.0.1", True),
        ("10.0.0.2", False),
        ("::1", True),
        ("0:0:0:0:0:0:0:1", True),
        ("9.9.9.9", False),  # it stands there as a DNS name, which is no address
    ],
)
def test_a_name_is_compared_with_names_and_an_address_with_addresses(host: str, is_named: bool) -> None:
    found = certificate(
        ("DNS", "a.test"), ("DNS", "9.9.9.9"), ("IP Address", "10.0.0.1"), ("IP Address", "0:0:0:0:0:0:0:1")
    )
    assert names.has_name(found, host) is is_named


@pytest.mark.parametrize(
    ("alternative", "owner"),
    [
        ((("DNS", "a.test"), ("URI", "https://a.test"), ("URI", "spiffe://d/ns/a")), "spiffe://d/ns/a"),
        ((("URI", "https://a.test"), ("DNS", "a.test"), ("DNS", "b.test")), "a.test"),
        ((("IP Address", "10.0.0.1"),), "CN=somebody,O=Shop\\, Ltd"),
        ((("URI", "spiffe://d/ns/a"), ("URI", "spiffe://d/ns/b"), ("DNS", "a.test")), None),
        ((("URI", "spiffe://d/ns/../a"),), None),
        ((("DNS", "spiffe://d/ns/a"),), None),  # a name that a signer may not look at
    ],
)
def test_its_owner_is_the_spiffe_id_else_a_name_else_the_subject(
    alternative: tuple[tuple[str, str], ...], owner: str | None
) -> None:
    assert names.identity(certificate(*alternative)) == owner


def test_a_certificate_without_anything_has_no_owner() -> None:
    assert names.identity({"subject": (), "subjectAltName": ()}) is None
    assert names.identity({}) is None


@pytest.mark.parametrize(
    ("wanted", "is_one"),
    [
        (["spiffe://d/ns/a"], True),
        (["spiffe://d/ns/b", "spiffe://d/ns/a"], True),
        (["spiffe://d/ns/a/more"], False),
        (["spiffe://D/ns/a"], False),
        (["a.test"], True),
        (["A.test"], True),
        (["x.wild.test"], False),  # a pattern is no identity
        (["CN=somebody,O=Shop\\, Ltd"], False),  # it has better ones
        ([], False),
    ],
)
def test_an_identity_is_compared_to_the_letter(wanted: list[str], is_one: bool) -> None:
    found = certificate(("URI", "spiffe://d/ns/a"), ("DNS", "a.test"), ("DNS", "*.wild.test"))
    assert names.has_identity(found, wanted) is is_one


def test_of_two_spiffe_ids_none_counts() -> None:
    found = certificate(("URI", "spiffe://d/ns/a"), ("URI", "spiffe://d/ns/b"), ("URI", "urn:x"))
    assert not names.has_identity(found, ["spiffe://d/ns/a"])
    assert names.has_identity(found, ["urn:x"])


def test_a_name_is_no_spiffe_id() -> None:
    found = certificate(("DNS", "spiffe://d/ns/a"))
    assert not names.has_identity(found, ["spiffe://d/ns/a"])


def test_a_message_names_a_few_of_many() -> None:
    many = certificate(*(("DNS", f"{number}.test") for number in range(7)))
    assert names.told_names(many) == "0.test, 1.test, 2.test, 3.test, 4.test and 2 more"
    assert names.told_names(certificate()) == "no name at all"
