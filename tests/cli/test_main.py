"""The command itself: its version, and readers that do not read to the end."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import subprocess
import sys

import pytest

import sidecar.core.plain
from sidecar.__main__ import BROKEN_PIPE, UNWRITTEN, main


def test_it_tells_its_version_and_its_build(capsys: pytest.CaptureFixture[str]) -> None:
    build = "plain" if sidecar.core.plain.__file__.endswith(".py") else "compiled"
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert main(["version"]) == 0
    line = f"sidecar {importlib.metadata.version('sidecar-proxy')} ({build})\n"
    assert capsys.readouterr().out == line * 2


@pytest.mark.process
def test_a_proxy_starts_without_what_reads_and_checks_files() -> None:
    """10 MiB of the memory that it would hold for its life: the loading process has them."""
    serving = "import sidecar.cli.run, sidecar.cli.serving, sidecar.runtime.worker, sys"
    program = f"{serving}; print(*sorted({{'pydantic', 'yaml', 're2'}} & {{*sys.modules}}))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []


@pytest.mark.process
@pytest.mark.parametrize("words", [["schema"], ["schema", "--markdown"], ["check", "config/minimal.yaml"]])
def test_a_reader_that_leaves_early_gets_no_traceback(words: list[str]) -> None:
    """The second one writes more than a pipe holds, the third one so little that only the end writes it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == BROKEN_PIPE


@pytest.mark.process
@pytest.mark.parametrize("is_unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--version"], ["check", "config/minimal.yaml"]])
def test_an_output_that_cannot_be_written_is_told_in_a_line(words: list[str], is_unbuffered: str) -> None:
    """`/dev/full` is a disk without room. Without a buffer it is the command that hears of it, else the end."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": is_unbuffered},
        )
    assert done.stderr == b"sidecar: the output cannot be written: No space left on device\n"
    assert done.returncode == UNWRITTEN


@pytest.mark.process
@pytest.mark.parametrize("words", [["check"], ["nonsense"]])
def test_messages_that_cannot_be_written_have_the_same_code(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", *words],
            stderr=full,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )
    assert (done.returncode, done.stdout) == (UNWRITTEN, b"")


def test_another_failure_of_a_file_is_no_failure_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "/some/file")

    monkeypatch.setattr("sidecar.cli.version.main", fails)
    with pytest.raises(OSError, match="/some/file"):
        main(["version"])


@pytest.mark.process
@pytest.mark.parametrize("words", ["version", "help", "schema"])
def test_whoever_closes_its_output_gets_the_exit_code_alone(words: str) -> None:
    command = f"{sys.executable} -m sidecar {words} >&-"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
