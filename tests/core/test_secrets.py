"""Which names make a value a secret, and how a query, a path and a URL are told without theirs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sidecar
from sidecar.core.secrets import (
    SECRET_NAME,
    is_hidden,
    may_be_secret,
    redacted_path,
    redacted_query,
    without_secrets,
)
from tests.support.secret_names import PLAIN, SECRET


@pytest.mark.parametrize("name", SECRET)
def test_names_of_secrets_are_known_in_any_case(name: str) -> None:
    for spelt in (name, name.lower(), name.upper()):
        assert may_be_secret(spelt)
        assert redacted_query(spelt.encode() + b"=x") == spelt.encode() + b"=REDACTED"


@pytest.mark.parametrize("name", PLAIN)
def test_other_names_are_told_in_any_case(name: str) -> None:
    for spelt in (name, name.lower(), name.upper()):
        assert not may_be_secret(spelt)
        assert redacted_query(spelt.encode() + b"=x") == spelt.encode() + b"=x"


def test_the_page_tells_the_names_as_the_rule_has_them() -> None:
    page = (Path(sidecar.__file__).parent / "telemetry" / "README.md").read_text()
    rows = page.partition("<!-- secrets -->")[2].strip().split("\n\n")[0].splitlines()[2:]
    assert len(rows) == 3
    for row in rows:
        _, rule, examples, told, _ = row.split("|")
        for name in re.findall(r"`([^`]+)`", rule + examples):
            assert may_be_secret(name), name
        for name in re.findall(r"`([^`]+)`", told):
            assert not may_be_secret(name), name


@pytest.mark.parametrize("name", SECRET)
def test_the_pattern_finds_the_name_in_a_text(name: str) -> None:
    assert re.search(rf"{SECRET_NAME}[\w.-]*: ", f"{{a: 1, {name}: x}}", re.IGNORECASE)


def test_a_text_of_the_environment_is_hidden_under_any_name() -> None:
    hidden = frozenset({"hush"})
    assert is_hidden("page", "hush", hidden)
    assert is_hidden("", "hush", hidden)
    assert is_hidden("token", "1", hidden)
    assert not is_hidden("page", "1", hidden)
    assert not is_hidden("", "1", hidden)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (b"", b""),
        (b"abc", b"abc"),
        (b"a=1&b=2", b"a=1&b=2"),
        (b"token=x", b"token=REDACTED"),
        (b"a=1&token=x&b=2", b"a=1&token=REDACTED&b=2"),
        (b"token=x&token=y", b"token=REDACTED&token=REDACTED"),
        (b"a=1;token=x&b=2", b"a=1;token=REDACTED&b=2"),
        (b"&;&token=x;;&", b"&;&token=REDACTED;;&"),
        (b"token", b"token"),
        (b"token=", b"token="),
        (b"token==x=y", b"token=REDACTED"),
        (b"=x&token=", b"=x&token="),
        (b"user[password]=x&filter%5Bpin%5D=y", b"user[password]=REDACTED&filter%5Bpin%5D=REDACTED"),
        (b"%74oken=x&%63%6F%64%65=y", b"%74oken=REDACTED&%63%6F%64%65=REDACTED"),
        (b"api+key=x&%zz=1&%=2", b"api+key=REDACTED&%zz=1&%=2"),
        (
            b"code=x&country_code=de&state=y&estate=1",
            b"code=REDACTED&country_code=de&state=REDACTED&estate=1",
        ),
        (b"q=token=x", b"q=token=x"),
        (b"\xff=1&\xfftoken=\xfe", b"\xff=1&\xfftoken=REDACTED"),
        (b"a" * 100 + b"token=x", b"a" * 100 + b"token=REDACTED"),
    ],
)
def test_a_query_is_told_without_its_secrets(query: bytes, told: bytes) -> None:
    assert redacted_query(query) == told


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (b"/a/b", b"/a/b"),
        (b"/token=x", b"/token=x"),
        (b"/shop;jsessionid=1A2B", b"/shop;jsessionid=REDACTED"),
        (b"/shop;v=2;jsessionid=1A2B/cart;a=1", b"/shop;v=2;jsessionid=REDACTED/cart;a=1"),
        (b"/;/;=;token=", b"/;/;=;token="),
    ],
)
def test_a_path_is_told_without_the_secrets_of_its_parameters(path: bytes, told: bytes) -> None:
    assert redacted_path(path) == told


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://c:4317", "http://c:4317"),
        ("http://ann:x@c:4317/v1", "http://(hidden)@c:4317/v1"),
        ("http://ann:x@y@c/v1", "http://(hidden)@c/v1"),
        ("http://ann@c/v1?a=1#b", "http://(hidden)@c/v1?(hidden)#b"),
        ("http://c/@v1", "http://c/@v1"),
        ("see 'http://ann:x@c/' and 'https://c?k=1'", "see 'http://(hidden)@c/' and 'https://c?(hidden)'"),
    ],
)
def test_a_url_is_told_without_user_password_and_query(url: str, told: str) -> None:
    assert without_secrets(url) == told


parts = st.lists(
    st.tuples(st.sampled_from([*SECRET, *PLAIN]), st.sampled_from(["", "x", "hush", "a=b"])), max_size=6
)


@given(parts, st.sampled_from(["&", ";"]))
def test_only_values_change_and_only_those_of_secrets(pairs: list[tuple[str, str]], separator: str) -> None:
    told = redacted_query(separator.join(f"{name}={value}" for name, value in pairs).encode()).decode()

    expected = [(name, "REDACTED" if value and name in SECRET else value) for name, value in pairs]
    assert told == separator.join(f"{name}={value}" for name, value in expected)


@given(st.binary(max_size=200))
def test_any_bytes_are_told_once_and_for_all(data: bytes) -> None:
    once = redacted_query(data)
    assert redacted_query(once) == once
    assert once.count(b"&") == data.count(b"&")
    assert redacted_path(redacted_path(data)) == redacted_path(data)
