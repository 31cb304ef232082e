"""Words to numbers and back."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.config.schema import units
from sidecar.core.snapshot import Address, Endpoint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("2s", 2.0),
        ("1m30s", 90.0),
        ("1.5s", 1.5),
        ("1h", 3600.0),
        ("1h1m1s1ms", 3661.001),
        ("0s", 0.0),
        ("0.5ms", 0.0005),
        ("35ms", 0.035),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "1",
        "1S",
        "1 s",
        "-1s",
        "1s1m",
        "1ms1s",
        "1.s",
        "1e3s",
        "٣s",
        "12:30",
        "1" * 99 + "s",
        "1s ",
        "1s\n",
    ],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_duration(text)


@pytest.mark.parametrize("value", [5, 0, 1.5, True, None, [], {}])
def test_a_duration_is_never_a_bare_value(value: object) -> None:
    with pytest.raises(ValueError):
        units.parse_duration(value)


def test_a_bare_number_gets_units_suggested() -> None:
    with pytest.raises(ValueError, match=r"^a duration needs a unit: write 5s or 5ms$"):
        units.parse_duration(5)


@given(st.integers(0, 10**9))
def test_a_formatted_duration_reads_as_the_same(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert units.parse_duration(units.format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.005, "5ms"),
        (15.0, "15s"),
        (90.0, "1m30s"),
        (300.0, "5m"),
        (3600.0, "1h"),
        (0.0, "0s"),
        (1.5, "1.5s"),
    ],
)
def test_formatted_durations(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64KiB", 65536),
        ("1MiB", 1 << 20),
        ("1.5KiB", 1536),
        ("512B", 512),
        ("1GiB", 1 << 30),
        ("900GiB", 900 << 30),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("value", ["64", 64, "64KB", "64k", "1.5B", "", "KiB", None, True, "901GiB"])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ValueError):
        units.parse_size(value)


@given(st.integers(0, 900 << 30))
@example((900 << 30) - 1)
def test_a_formatted_size_reads_as_the_same(size: int) -> None:
    assert units.parse_size(units.format_size(size)) == size


@pytest.mark.parametrize(
    ("value", "share"),
    [("50%", 0.5), (0.5, 0.5), (1, 1.0), (0, 0.0), ("0%", 0.0), ("100%", 1.0), ("0.1%", 0.001)],
)
def test_shares(value: object, share: float) -> None:
    assert units.parse_share(value) == share


@pytest.mark.parametrize(
    "share", [0.0, 1.0, 0.5, 0.123456789, 1 / 3, 5e-8, 1.5e-9, 1e-12, 0.00018446744073709551616005]
)
def test_a_share_is_told_as_it_can_be_written(share: float) -> None:
    told = units.format_share(share)
    assert "e" not in told
    assert units.parse_share(told) == pytest.approx(share, rel=1e-9)


@pytest.mark.parametrize("seconds", [1e-9, 2.5e-8, 60.000000001, 0.0000015, 3600.5, 1e8])
def test_a_duration_is_told_as_it_can_be_written(seconds: float) -> None:
    told = units.format_duration(seconds)
    assert "e" not in told
    assert units.parse_duration(told) == pytest.approx(seconds, rel=1e-9)


@pytest.mark.parametrize(
    "value", [50, 1.1, -0.1, "101%", "0.5", "half", "", True, None, float("nan"), float("inf")]
)
def test_what_is_no_share(value: object) -> None:
    with pytest.raises(ValueError):
        units.parse_share(value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:15006", Address("0.0.0.0", 15006)),
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("[::1]:80", Address("::1", 80)),
        ("unix:/run/s.sock", Address("", 0, "/run/s.sock")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert units.parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "*:80",
        "localhost:80",
        "::1:80",
        "[127.0.0.1]:80",
        "1.2.3.4:65536",
        "1.2.3.4",
        "unix:",
        "unix:a",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_address(text)


def test_a_socket_path_fits_into_the_kernels_field() -> None:
    assert units.parse_address("unix:/" + "a" * 106).path == "/" + "a" * 106
    with pytest.raises(ValueError, match="at most 107 bytes"):
        units.parse_address("unix:/" + "a" * 107)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("Payments:80", Endpoint("payments", 80)),
        ("a-b.c_d.svc.:1", Endpoint("a-b.c_d.svc.", 1)),
        ("10.0.0.1:80", Endpoint("10.0.0.1", 80)),
        ("[fe80::1]:80", Endpoint("fe80::1", 80)),
        ("unix:/a", Endpoint("", 0, "/a")),
    ],
)
def test_endpoints(text: str, endpoint: Endpoint) -> None:
    assert units.parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text", ["a", "a:0", "a:b", "http://a:80", "-a:80", "a..b:80", "1.2.3:80", "a b:80", "[a]:1"]
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(ValueError):
        units.parse_endpoint(text)


def test_the_shorthand_url_has_port_80_by_default() -> None:
    assert units.parse_upstream_url("http://Payments/") == Endpoint("payments", 80)
    assert units.parse_upstream_url("http://[::1]:81") == Endpoint("::1", 81)


@pytest.mark.parametrize(
    ("text", "seconds"), [("2.01m", 120.6), ("0.07h", 252.0), ("1.1m", 66.0), ("0.29s", 0.29)]
)
def test_a_duration_is_the_number_that_people_mean(text: str, seconds: float) -> None:
    """And not one beside it that a product of floats has come to: `diff` would tell of a change."""
    assert units.parse_duration(text) == seconds
    assert units.parse_duration(units.format_duration(seconds)) == seconds
