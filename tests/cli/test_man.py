"""Pages of the manual: made from the parsers, sound, and where `man` finds them once the package is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.cli.commands import COMMANDS, parser_of
from sidecar.cli.man_page import pages

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "sidecar" / "manual"
NAMES = {"sidecar.1", *(f"sidecar-{name}.1" for name in COMMANDS)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man") / "new" / "man1"
    assert main(["man", str(folder)]) == 0
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_pages_that_are_installed_are_those_of_the_parsers(made: Path) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        shutil.rmtree(KEPT, ignore_errors=True)
        shutil.copytree(made, KEPT)
    assert set(texts(made)) == NAMES
    assert texts(KEPT) == texts(made), "UPDATE_GOLDEN=1 pytest tests/cli"


def test_each_page_has_every_flag_with_its_purpose() -> None:
    _, parsers = parser_of(*COMMANDS, has_exit_codes=False)
    made = dict(pages("1.2.3", parsers))
    for name, parser in parsers.items():
        text = made[f"sidecar-{name}.1"]
        assert '"sidecar 1.2.3"' in text
        assert ".SH EXIT STATUS\n.TP\n.B 0\n" in text
        for action in parser._actions:
            assert action.help, f"{name} {action.option_strings or action.dest}: give it a help"
            for flag in action.option_strings if action.help != "==SUPPRESS==" else ():
                assert f"\\fB{flag.replace('-', chr(92) + '-')}\\fR" in text


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="Debian's package mandoc is not installed")
def test_mandoc_finds_nothing_wrong(made: Path) -> None:
    """But that they have no date: it would be that of a version, which is there."""
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *sorted(map(str, made.iterdir()))],
        capture_output=True,
        text=True,
    )
    told = (done.stdout + done.stderr).splitlines()
    assert [line for line in told if 'missing date, using "": TH' not in line] == []


@pytest.mark.skipif(shutil.which("man") is None, reason="Debian's package man-db is not installed")
@pytest.mark.parametrize("name", ["sidecar.1", "sidecar-inject.1", "sidecar-completion.1"])
def test_man_shows_a_page_without_a_warning(name: str, made: Path) -> None:
    environ = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MAN_KEEP_FORMATTING": ""}
    done = subprocess.run(
        ["man", "--warnings", "-l", str(made / name)], capture_output=True, text=True, env=environ
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "EXIT STATUS" in done.stdout
    if name == "sidecar-completion.1":
        assert "\n       bash:  sidecar completion bash > ~/.local/share/" in done.stdout


def test_a_list_may_be_broken_and_a_dot_begins_no_request() -> None:
    _, parsers = parser_of(*COMMANDS, has_exit_codes=False)
    parsers["help"].epilog = ".so /etc/passwd\n\n'so back\\slash, a,b"
    text = dict(pages("1", parsers))["sidecar-help.1"]
    assert "\n\\&.so /etc/passwd\n.PP\n\\(aqso back\\eslash, a,\\:b\n" in text


@pytest.mark.process
def test_the_wheel_brings_them_to_where_man_looks(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        check=True, cwd=ROOT, capture_output=True, env={**os.environ, "HATCH_BUILD_NO_HOOKS": "1"},
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".1")]
    assert {name.rpartition(".data/data/share/man/man1/")[2] for name in names} == NAMES
