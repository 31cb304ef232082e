"""A root file system with a Python and what stands in one folder, and nothing else: python root.py FOLDER TO [FILE].

Copies the Python that runs it, FOLDER, the shared libraries that either needs, and the few files of /etc without
which names, certificates and users are not found. FILE becomes the configuration. No shell, no package manager, no
compiler: what is not there cannot be used by whoever gets in. Standard library alone; Linux with glibc.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

USER = "sidecar:x:65532:65532::/:/nonexistent\n"
UNNEEDED = (
    "ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtledemo", "turtle.py", "pydoc_data", "venv",
    "site-packages", "__pycache__", "_sysconfigdata*", "config-*",
)  # fmt: skip
"""Of the standard library: installers, editors, and tests."""
OPENED_BY_NAME = ("libgcc_s.so.1",)
"""What no file names as needed: glibc opens it when a thread ends."""
AS_THEY_ARE = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/openssl.cnf",
    "/etc/ld.so.cache",
    "/etc/os-release",
)
SSL_FOLDER = Path("/usr/lib/ssl")
"""Where OpenSSL looks for /etc/ssl."""
MOMENT = 315_532_800
"""Of every file, in seconds since the epoch: 1980, so that two builds are the same."""
CONFIGURATION = Path("etc/sidecar/sidecar.yaml")
FOLDERS = ("dev", "proc", "sys", "tmp")


def build(folder: Path, to: Path, configuration: Path | None = None) -> None:
    """`to` must not exist."""
    to.mkdir()
    _python(to)
    _copy_tree(folder, to, ())
    for name in AS_THEY_ARE:
        if Path(name).exists():
            _copy(Path(name), to)
    if SSL_FOLDER.is_dir():
        _copy_tree(SSL_FOLDER, to, ("misc",))
    for link in sorted(path for path in (to / folder.relative_to("/")).rglob("*") if path.is_symlink()):
        _complete(link, to)
    for library in sorted(_libraries(_elf_files(to), to)):
        _copy(library, to)
    (to / "etc").mkdir(exist_ok=True)
    (to / "etc/passwd").write_text("root:x:0:0::/:/nonexistent\n" + USER)
    (to / "etc/group").write_text("root:x:0:\nsidecar:x:65532:\n")
    (to / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    if configuration is not None:
        (to / CONFIGURATION).parent.mkdir(parents=True)
        shutil.copyfile(configuration, to / CONFIGURATION)
    for name in FOLDERS:
        (to / name).mkdir(exist_ok=True)
    _compile(to / Path(sysconfig.get_path("stdlib")).relative_to("/"), to)
    for path in [to, *to.rglob("*")]:
        os.utime(path, (MOMENT, MOMENT), follow_symlinks=False)


def _compile(folder: Path, to: Path) -> None:
    """By content, not by date: nothing is written at run time, and each build gives the same bytes."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(folder, quiet=2, invalidation_mode=mode, stripdir=str(to), prependdir="/")


def _python(to: Path) -> None:
    _copy(Path(os.path.realpath(sys.executable)), to)
    home = Path(sysconfig.get_path("stdlib"))
    _copy_tree(home, to, UNNEEDED)
    data = [path for path in home.glob("_sysconfigdata*") if path.suffix == ".py"]
    for path in data:  # `sysconfig` asks for it
        _copy(path, to)
    (to / home.relative_to("/") / "site-packages").mkdir()


def _copy_tree(folder: Path, to: Path, unneeded: Iterable[str]) -> None:
    target = to / folder.relative_to("/")
    shutil.copytree(
        folder, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*unneeded, "*.a")
    )


def _copy(path: Path, to: Path) -> None:
    """The file at the same place; a link as a link, and what it leads to."""
    target = to / path.relative_to("/")
    if target.exists() or target.is_symlink():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        led_to = Path(os.path.normpath(path.parent / os.readlink(path)))
        target.symlink_to(os.readlink(path))
        _copy(led_to, to)
    else:
        shutil.copy2(path, target)


def _complete(link: Path, to: Path) -> None:
    """What a link leads to outside of what was copied: a venv's `python` leads to the Python that made it, by the
    name that it was called by."""
    target = Path(os.readlink(link))
    if target.is_absolute() and target.is_file():
        _copy(target, to)


def _elf_files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def _libraries(files: Iterable[Path], root: Path) -> set[Path]:
    """What the loader would load for them, the loader itself included."""
    found: set[Path] = set()
    for file in files:
        original = Path("/") / file.relative_to(root)
        done = subprocess.run(["ldd", str(original)], capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            name, _, rest = line.strip().partition(" => ")
            path = (rest or name).split(" (")[0].strip()
            if path.startswith("/"):
                found.add(Path(path))
    beside = {path.parent for path in found}
    for name in OPENED_BY_NAME:
        found |= {folder / name for folder in beside if (folder / name).exists()}
    return {path for path in found if not path.is_relative_to("/opt/sidecar")}


if __name__ == "__main__":
    build(*map(Path, sys.argv[1:]))
