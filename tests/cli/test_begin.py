"""The first minutes at a terminal: no file yet, a word mistyped, what a command does, and a file to begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.cli import early_signals
from sidecar.cli.commands import COMMANDS
from sidecar.config.load import load_file


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIDECAR_CONFIG", raising=False)
    monkeypatch.setattr(
        early_signals, "hold", lambda: None
    )  # this process, and those that it starts, need theirs
    return tmp_path


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("stat", "status"),
        ("chekc", "check"),
        ("injekt", "inject"),
        ("brekaer", "breaker"),
        ("help me", "help"),
    ],
)
def test_a_mistyped_command_is_told_with_what_was_meant(
    word: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == 2
    told = capsys.readouterr().err
    assert f"no command {word!r}; did you mean {meant!r}?" in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("words", [["xyzzy"], ["help", "xyzzy"]])
def test_what_is_like_no_command_is_told_where_they_are_listed(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == "sidecar: there is no command 'xyzzy'. `sidecar help` lists them\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    told = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n    {name} " not in told and f"\n    {name}\n" not in told] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_what_its_own_option_shows(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["help", name]) == 0
    told = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert capsys.readouterr().out == told


def test_run_without_a_file_says_what_it_looked_for_and_how_to_begin(
    in_an_empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run"]) == 2
    told = capsys.readouterr().err
    for part in (
        "no FILE was given",
        "$SIDECAR_CONFIG",
        f"no sidecar.yaml in {in_an_empty_folder}",
        "sidecar init",
    ):
        assert part in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("words", [["init"], ["init", "mine.yaml", "--app-port", "9000"]])
def test_a_file_to_begin_with_is_good(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    file, port = (words[1], 9000) if len(words) > 1 else ("sidecar.yaml", 8080)
    assert main(words) == 0
    assert f"sidecar check {file}" in capsys.readouterr().out
    assert main(["check", file]) == 0
    snapshot = load_file(file, {}).snapshot
    (upstream,) = snapshot.upstreams.values()
    assert [one.port for one in upstream.endpoints] == [port]
    assert set(snapshot.listeners) == {"inbound", "outbound"}


def test_what_it_offers_as_comments_is_good_too(in_an_empty_folder: Path) -> None:
    """Each commented line made a key, as a reader would."""
    assert main(["init"]) == 0
    text = (in_an_empty_folder / "sidecar.yaml").read_text()
    head, _, rest = text.partition("version: 1")
    lines = [_uncommented(line) for line in rest.splitlines()]
    (in_an_empty_folder / "all.yaml").write_text("\n".join(["version: 1", *lines]))
    snapshot = load_file("all.yaml", {}).snapshot
    assert set(snapshot.upstreams) == {"app", "payments"}
    assert [route.name for route in snapshot.routes] == ["app", "payments"]
    assert head.startswith("#")


def _uncommented(line: str) -> str:
    bare = line.lstrip()
    if not bare.startswith("# "):
        return line
    return line[: len(line) - len(bare)] + bare.removeprefix("# ")


def test_it_leaves_a_file_that_is_there_alone(
    in_an_empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_an_empty_folder / "sidecar.yaml").write_text("mine")
    assert main(["init"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert (in_an_empty_folder / "sidecar.yaml").read_text() == "mine"


@pytest.mark.parametrize("file", ["no/such/folder.yaml", "."])
def test_what_cannot_be_written_is_told(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", file]) == 1
    assert capsys.readouterr().err.startswith(f"sidecar: {file} ")


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_a_port_that_is_none_is_told(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["init", f"--app-port={port}"])
    assert ended.value.code == 2
    assert "say 1 to 65535" in capsys.readouterr().err
