"""A file that lists endpoints: what it may say, and that nothing of it is told where it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.config.endpoint_file import BadEndpointFile, read_endpoints
from sidecar.core.snapshot import Endpoint


def read(folder: Path, text: str) -> tuple[Endpoint, ...]:
    file = folder / "endpoints.yaml"
    file.write_text(text)
    return read_endpoints(str(file))


def facts(found: tuple[Endpoint, ...]) -> list[tuple[str, int, int, tuple[str, ...]]]:
    return [(str(one), one.weight, one.priority, one.zones) for one in found]


def test_addresses_alone_or_with_what_is_known_of_them(tmp_path: Path) -> None:
    text = """\
endpoints:
- "10.0.0.1:8080"
- {address: "[fd00::1]:80", weight: 0, priority: 2, zone: eu-west-1a}
- {address: "unix:/run/app.sock"}
"""
    assert facts(read(tmp_path, text)) == [
        ("10.0.0.1:8080", 1, 0, ()),
        ("[fd00::1]:80", 0, 2, ("eu-west-1a",)),
        ("unix:/run/app.sock", 1, 0, ()),
    ]


def test_json_will_do(tmp_path: Path) -> None:
    listed = {"endpoints": ["10.0.0.1:80", {"address": "10.0.0.2:80", "weight": 3}]}
    assert facts(read(tmp_path, json.dumps(listed))) == [("10.0.0.1:80", 1, 0, ()), ("10.0.0.2:80", 3, 0, ())]


def test_none_is_said_by_an_empty_list(tmp_path: Path) -> None:
    assert read(tmp_path, "endpoints: []\n") == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "{file}: it is empty: write `endpoints: []` for none"),
        (" \n", "{file}: it is empty: write `endpoints: []` for none"),
        ("endpoints:\n", "{file}:1:11: `endpoints` must be a list of addresses"),
        ("addresses: []\n", "{file}:1:1: unknown key: `endpoints` alone is known here; {file}:1:1: `endpoints`"
         " must be a list of addresses"),
        ("endpoints: [here]\n", "{file}:1:13: not an endpoint: write an address with its port, as in"
         ' "10.0.0.1:8080"'),
        ('endpoints: ["a.test:80"]\n', "{file}:1:13: a name: write its IP address, or put the name into the"
         " configuration's `endpoints`"),
        ("endpoints: [\n", "{file}:2:1: this is no list of endpoints in YAML: write `endpoints:`, and below it"
         " `- host:port` for each"),
        ("#" * 9_000_000, "{file}: it has more than 8388608 bytes: divide it"),
        ('endpoints: ["https://10.0.0.1"]\n', "{file}:1:13: leave https:// out: give the upstream a `tls`"),
        ('endpoints: ["10.0.0.1:80", "10.0.0.1:80"]\n', "{file}:1:28: this endpoint stands at {file}:1:13 already:"
         " leave one of them out"),
        ("endpoints:\n- {weight: 1}\n", "{file}:2:3: missing key `address`"),
        ('endpoints:\n- {address: "10.0.0.1:80", wieght: 1}\n', "{file}:2:28: unknown key: known here are address,"
         " weight, priority, zone"),
        ('endpoints:\n- {address: "10.0.0.1:80", weight: -1}\n', "{file}:2:36: `weight` must be a whole number from 0"
         " to 65535"),
        ('endpoints:\n- {address: "10.0.0.1:80", priority: high}\n', "{file}:2:38: `priority` must be a whole number"
         " from 0 to 65535"),
        ('endpoints:\n- {address: "10.0.0.1:80", zone: [a]}\n', "{file}:2:34: `zone` must be a text of up to 63"
         " letters, digits, '.', '_' and '-'"),
        ("endpoints: [1, 2, 3, 4, 5]\n", None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place_and_a_remedy(
    tmp_path: Path, text: str, told: str | None
) -> None:
    with pytest.raises(BadEndpointFile) as caught:
        read(tmp_path, text)
    if told is None:
        assert str(caught.value).endswith("; and 2 more")
    else:
        assert str(caught.value) == told.format(file=tmp_path / "endpoints.yaml")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadEndpointFile, match=r"missing\.yaml: cannot be read: No such file or directory$"):
        read_endpoints(str(tmp_path / "missing.yaml"))


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text() | st.text(alphabet="sEcReT:{}[]-,'\"&*! \n\t#%@`|>?0"))
def test_no_content_is_ever_told(tmp_path: Path, text: str) -> None:
    secret = "s3cr3t-t0k3n"
    for content in (
        f"{secret}{text}",
        f"{text}\n{secret}",
        f"endpoints:\n- {text}{secret}\n",
        f"{secret}: {text}",
    ):
        file = tmp_path / "endpoints.yaml"
        file.write_bytes(content.encode("utf-8", "surrogatepass"))
        assert secret not in what_is_told(file)


def what_is_told(file: Path) -> str:
    try:
        return str(read_endpoints(str(file)))
    except BadEndpointFile as error:
        return str(error)
