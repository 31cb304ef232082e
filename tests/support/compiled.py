"""A copy of this checkout with the compiled data path in it: python -m tests.support.compiled FOLDER.

What is in it is what the wheel has, built by pip as for a release: needs a C compiler, and the index for mypy. Tests
that are run in that folder import the compiled modules; with `SIDECAR_BUILD=compiled` no other ones.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.so", "build", "dist")
"""`.ci` and the like are no part of what is tested."""


def usual_folder() -> Path:
    """Where a build of these very sources is kept from one measurement to the next."""
    digest = hashlib.sha256()
    for path in [ROOT / "pyproject.toml", ROOT / "hatch_build.py", *sorted((ROOT / "sidecar").rglob("*.py"))]:
        digest.update(path.read_bytes())
    return Path(tempfile.gettempdir(), f"sidecar-compiled-{digest.hexdigest()[:12]}")


class NotBuilt(Exception):
    """There is no compiled build; the message has the end of pip's output."""


def compiled_copy(folder: Path) -> Path:
    """Make `folder`, which does not exist yet, and build into it. Takes some two minutes of a core.

    Raises:
        NotBuilt: pip could not build it.
    """
    whole, folder = folder, folder.with_name(f"{folder.name}.part")
    shutil.rmtree(folder, ignore_errors=True)  # of a build that was cut short
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    with tempfile.TemporaryDirectory() as made:
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            made,
            str(folder),
        ]
        done = subprocess.run(
            command, env=os.environ | {"HATCH_BUILD_HOOKS_ENABLE": "1"}, capture_output=True, text=True
        )
        if done.returncode:
            raise NotBuilt(done.stderr[-3000:])
        (wheel,) = Path(made).glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder, [name for name in packed.namelist() if name.endswith(".so")])
    shutil.rmtree(folder / "build")
    return folder.rename(whole)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.compiled")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    try:
        folder = compiled_copy(parser.parse_args().folder)
    except NotBuilt as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(list((folder / 'sidecar').rglob('*.so')))} compiled modules in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
