"""What a Tab offers, asked of the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.cli.commands import COMMANDS

pytestmark = pytest.mark.process


def run(shell: str, program: str, folder: Path) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    answer = subprocess.run(
        [shell, *(["-f"] if shell == "zsh" else []), "-c", program],
        capture_output=True, text=True, check=True, env=environment, cwd=folder, timeout=60,
    )  # fmt: skip
    assert answer.stderr == ""
    return answer.stdout.splitlines()


def by_bash(script: Path, words: list[str], folder: Path) -> list[str]:
    given = " ".join(f"'{word}'" for word in words)
    return run(
        "bash",
        f"source {script}; COMP_WORDS=({given}); COMP_CWORD={len(words) - 1}; _sidecar;"
        ' printf "%s\\n" "${COMPREPLY[@]}"',
        folder,
    )


def by_fish(script: Path, words: list[str], folder: Path) -> list[str]:
    lines = run("fish", f"source {script}; complete -C '{' '.join(words)}'", folder)
    return [line.partition("\t")[0] for line in lines]


ASK: dict[str, Callable[[Path, list[str], Path], list[str]]] = {"bash": by_bash, "fish": by_fish}
CASES = [
    (["sta"], ["status"]),
    (["breaker", "c"], ["close"]),
    (["healthcheck", "--probe", ""], ["live", "ready", "started"]),
    (["healthcheck", "--pro"], ["--probe"]),
    (["explain", "--adm"], ["--admin"]),
    (["inject", "--mode", ""], ["container", "native"]),
    (["completion", ""], ["bash", "fish", "zsh"]),
    (["help", "web"], ["webhook"]),
    (["demo", "--breaker-m"], []),
]


def script_of(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", shell]) == 0
    script = folder / f"sidecar.{shell}"
    script.write_text(capsys.readouterr().out)
    return script


@pytest.mark.parametrize(("typed", "offered"), CASES, ids=[" ".join(typed) for typed, _ in CASES])
@pytest.mark.parametrize("shell", ASK)
def test_a_tab_offers(
    shell: str, typed: list[str], offered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = ASK[shell](script_of(shell, tmp_path, capsys), ["sidecar", *typed], tmp_path)
    last = typed[-1]
    assert sorted(one for one in found if one.startswith(last) and one) == offered


@pytest.mark.parametrize("shell", ASK)
def test_first_come_the_commands(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ASK[shell](script_of(shell, tmp_path, capsys), ["sidecar", ""], tmp_path)
    assert set(COMMANDS) <= set(found)


def test_zsh_reads_its_script_and_knows_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its completion needs a terminal: what is asked here is whether it takes the script, with each specification."""
    script = script_of("zsh", tmp_path, capsys)
    script.rename(tmp_path / "_sidecar")
    program = (
        f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -d {tmp_path}/dump;"
        ' print -r -- "$_comps[sidecar]"; autoload +X _sidecar; whence -w _sidecar'
    )
    assert run("zsh", program, tmp_path) == ["_sidecar", "_sidecar: function"]
