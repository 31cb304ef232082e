"""The command itself: its version, and readers that do not read to the end."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from sidecar.__main__ import BROKEN_PIPE, main


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sidecar {importlib.metadata.version('sidecar-proxy')}\n"


@pytest.mark.process
def test_a_proxy_starts_without_what_reads_and_checks_files() -> None:
    """10 MiB of the memory that it would hold for its life: the loading process has them."""
    program = "import sidecar.cli.run, sys; print(*sorted({'pydantic', 'yaml', 're2'} & {*sys.modules}))"
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
