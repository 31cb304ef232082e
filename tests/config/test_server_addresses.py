"""The quick reading of where a sidecar is asked says what the whole one says."""

from pathlib import Path

import pytest

from sidecar.config.load import load_file
from sidecar.config.problems import ConfigError
from sidecar.config.server_addresses import ServerAddresses, server_addresses

ROOT = Path(__file__).parents[2]
GOOD = [
    ROOT / "config" / "minimal.yaml",
    ROOT / "config" / "reference.yaml",
    *sorted((ROOT / "deploy").glob("*/sidecar.yaml")),
]
SMALL = "upstreams: {app: {endpoints: ['a:1']}}\nroutes: [{name: app, upstream: app}]\n"


@pytest.mark.parametrize(
    "environ", [{}, {"PROBES_PORT": "16021", "ADMIN_PORT": "16000"}], ids=["as it is", "moved"]
)
@pytest.mark.parametrize("file", GOOD, ids=[str(path.relative_to(ROOT)) for path in GOOD])
def test_it_agrees_with_a_whole_load(file: Path, environ: dict[str, str]) -> None:
    snapshot = load_file(file, environ).snapshot
    asked = server_addresses(str(file), environ)
    assert asked == ServerAddresses(snapshot.probes, snapshot.admin.address, snapshot.admin.token_file)


@pytest.mark.parametrize(
    "text", ["", "admin: {}\nprobes: {}\n", "admin:\nprobes: {address: }\n", "admin: 1\n"]
)
def test_what_is_not_said_is_built_in(text: str, tmp_path: Path) -> None:
    (tmp_path / "sidecar.yaml").write_text("version: 1\n" + text)
    assert server_addresses(str(tmp_path / "sidecar.yaml"), {}) == ServerAddresses()


def test_a_directory_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\nprobes: {address: '127.0.0.1:7'}\n" + SMALL)
    (tmp_path / "b.yaml").write_text("version: 1\nadmin: {address: '127.0.0.1:8', token_file: token}\n")
    (tmp_path / "token").write_text("x")
    admin = load_file(tmp_path, {}).snapshot.admin
    asked = server_addresses(str(tmp_path), {})
    assert (str(asked.probes), str(asked.admin)) == ("127.0.0.1:7", "127.0.0.1:8")
    assert asked.token_file == admin.token_file == str(tmp_path / "token")


@pytest.mark.parametrize("name", ["none.yaml", "", "broken.yaml"])
def test_what_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("probes: [")
    if not name:
        (tmp_path / "broken.yaml").unlink()
    with pytest.raises(ConfigError) as caught:
        server_addresses(str(tmp_path / name), {})
    assert str(caught.value).startswith(str(tmp_path / name).rstrip("/"))
