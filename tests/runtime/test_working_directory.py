"""A process of ours takes no modules from the folder that somebody works in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sidecar
from sidecar.core.program import command

SOURCE = Path(sidecar.__file__).parents[1]
TAKEN = ("pydantic", "yaml", "queue", "platform", "random")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with modules that are called as others that the sidecar imports."""
    for name in TAKEN:
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('{name} of the working directory')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.process
def test_a_configuration_is_loaded_whatever_modules_lie_about(folder: Path) -> None:
    file = folder / "sidecar.yaml"
    file.write_text("version: 1\nadmin: {address: 'unix:/no/such/folder'}\nupstreams: {}\nroutes: []\n")
    environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
    words = [sys.executable, "-P", "-m", "sidecar", "run", str(file)]  # as the command `sidecar` does
    told = subprocess.run(words, capture_output=True, text=True, env=environ, check=False)
    assert "of the working directory" not in told.stderr
    assert "admin.address: cannot listen on unix:/no/such/folder" in told.stderr, "it has been loaded"


def test_a_checkout_that_is_run_where_it_lies_is_found_by_its_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("sidecar", "run") == [sys.executable, "-P", "-m", "sidecar", "run"]
    monkeypatch.syspath_prepend(str(tmp_path))
    assert command("sidecar", "run") == [sys.executable, "-m", "sidecar", "run"]


def test_a_working_directory_that_was_removed_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert command("sidecar")[1] == "-P"
    monkeypatch.chdir(tmp_path)
