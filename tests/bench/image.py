"""Builds the image with buildah, twice, and runs what came out: python -m tests.bench.image [--work FOLDER].

Needs root, `buildah` and `debootstrap` (Debian), and Debian's and PyPI's registries. The base of the Dockerfile's
`FROM` is made here, from Debian and the Python that `--python` names, since no registry of images is asked for one.
It has the name of the official one, and another content. Told is: what has no place in the image, what differs
between the two builds, and what the sidecar says in it. Exit code 1 where something is wrong. `--work` is kept, and
its base is used again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.ports import free_ports

ROOT = Path(__file__).parents[2]
LIBRARIES = (
    "ca-certificates", "libbz2-1.0", "libexpat1", "libffi8", "liblzma5", "libncursesw6", "libreadline8",
    "libsqlite3-0", "libssl3", "libuuid1", "zlib1g",
)  # fmt: skip
"""What Python's own modules are linked with."""
LEFT_OUT = ("site-packages", "test", "tkinter", "idlelib", "_tkinter*", "__pycache__", "*.a")
UNWANTED = frozenset(
    ("sh", "bash", "dash", "busybox", "apt", "dpkg", "perl", "gcc", "pip", "ensurepip", "activate", "venv")
)
READY_SECONDS = 60.0
CONFIG = """\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
drain: {{delay: 0s}}
upstreams: {{app: {{endpoints: ["127.0.0.1:{app}"]}}}}
routes: [{{name: app, upstream: app}}]
"""


class Buildah:
    """With a store of its own, so that it needs no engine and leaves nothing behind."""

    def __init__(self, work: Path) -> None:
        self._command = ["buildah", "--root", str(work / "store"), "--runroot", str(work / "run")]
        self._command += ["--storage-driver", "vfs"]

    def __call__(self, *words: str) -> str:
        done = subprocess.run([*self._command, *words], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"buildah {' '.join(words)}: {done.stderr[-3000:]}")
        return done.stdout.strip()


def base_of(work: Path, python: Path) -> Path:
    """Debian, with that Python in /usr/local as the official image has it."""
    base = work / "base"
    if not base.exists():
        command = [
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(LIBRARIES)}",
            "bookworm",
            str(base),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        _add_python(base / "usr/local", python)
        authorities = Path("etc/ssl/certs/ca-certificates.crt")
        shutil.copy("/" / authorities, base / authorities)
        subprocess.run(["chroot", str(base), "/sbin/ldconfig"], check=True)
    return base


def _add_python(to: Path, python: Path) -> None:
    program = Path(os.path.realpath(python))
    prefix, name = program.parent.parent, program.name
    shutil.copy2(program, to / "bin" / name)
    for called in ("python3", "python"):
        (to / "bin" / called).symlink_to(name)
    home = to / "lib" / name
    shutil.copytree(prefix / "lib" / name, home, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for library in (prefix / "lib").glob("libpython3*.so*"):
        shutil.copy2(library, to / "lib", follow_symlinks=False)
    shutil.copytree(prefix / "include" / name, to / "include" / name)  # the data path is compiled
    (home / "site-packages").mkdir()
    for part in (prefix / "lib" / name / "site-packages").glob("pip*"):
        shutil.copytree(
            part, home / "site-packages" / part.name, ignore=shutil.ignore_patterns("__pycache__")
        )
    pip = to / "bin/pip"
    pip.write_text('#!/bin/sh\nexec python3 -m pip "$@"\n')
    pip.chmod(0o755)


def built(work: Path, buildah: Buildah, number: int, *more: str) -> Path:
    """The root of the image that one build gives, with `more` words for buildah."""
    sources, tag = work / f"sources-{number}", f"localhost/sidecar:{number}"
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir()
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    for name in ("sidecar", "deploy/image", "config"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in sources.rglob("*"):
        os.utime(path, (number * 1e8, number * 1e8))  # another checkout has other times
    buildah(
        "bud",
        "--isolation",
        "chroot",
        "--pull-never",
        "--no-cache",
        "--format",
        "docker",
        "-t",
        tag,
        *more,
        str(sources),
    )
    return Path(buildah("mount", buildah("from", "--pull-never", tag)))


def files_of(root: Path) -> dict[str, tuple[int, int, int, str]]:
    """By path: mode, owner, time of change in seconds, and what is in it or where it leads to."""
    found = {}
    for path in root.rglob("*"):
        status, content = path.lstat(), ""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, int(status.st_mtime), content)
    return found


def out_of_place(root: Path) -> Iterator[str]:
    """What is neither Python nor the sidecar."""
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.name in UNWANTED:
            yield f"{name}: has no place here"
        elif path.is_symlink():
            target = os.readlink(path)
            there = root / target.lstrip("/") if target.startswith("/") else path.parent / target
            if path.parent.name == "bin" and not os.path.lexists(there):
                yield f"{name}: leads to nothing ({target})"
        elif path.is_file() and path.stat().st_mode & 0o6000:
            yield f"{name}: runs as another user"
        elif (
            path.is_file()
            and path.parent.name in ("bin", "sbin")
            and not re.match(r"python3|sidecar$", path.name)
        ):
            yield f"{name}: a program"


def says(root: Path) -> Iterator[str]:
    """What the sidecar says in there, and what is wrong with that."""
    ports = dict(zip(("inbound", "probes", "admin", "app"), free_ports(4), strict=True))
    (root / "etc/sidecar/bench.yaml").write_text(CONFIG.format(**ports))
    inside = ["chroot", "--userspec=65532:65532", str(root), "/opt/sidecar/bin/sidecar"]
    environment = {"PATH": "/opt/sidecar/bin:/usr/sbin:/usr/bin", "SIDECAR_CONFIG": "/etc/sidecar/bench.yaml"}
    version = subprocess.run([*inside, "--version"], capture_output=True, text=True, env=environment)
    print(f"  --version: {version.stdout.strip()}")
    if version.returncode:
        yield f"--version: {version.stderr.strip()}"
        return
    process = subprocess.Popen(
        [*inside, "run"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        until = time.monotonic() + READY_SECONDS
        while process.poll() is None and time.monotonic() < until:
            health = subprocess.run([*inside, "healthcheck"], capture_output=True, text=True, env=environment)
            if health.returncode == 0:
                break
        print(f"  healthcheck: {health.stdout.strip()}")
        if health.returncode:
            yield f"healthcheck: {(health.stdout + health.stderr).strip()}"
    finally:
        process.terminate()
        process.communicate()
        (root / "etc/sidecar/bench.yaml").unlink()
    if process.returncode:
        yield f"run ended with {process.returncode}"


def based(work: Path, python: Path) -> Buildah:
    """With the image that the Dockerfile begins from."""
    buildah = Buildah(work)
    base = base_of(work, python)
    name = re.search(r"^ARG PYTHON=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert name is not None
    container = buildah("from", "scratch")
    buildah("add", "-q", container, str(base), "/")
    buildah("config", "--env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
    buildah("commit", "-q", container, f"docker.io/library/python:{name[1]}")
    return buildah


def check(work: Path, python: Path) -> int:
    buildah = based(work, python)
    roots = []
    for number in (1, 2):
        began = time.monotonic()
        roots.append(built(work, buildah, number))
        print(f"build {number}: {time.monotonic() - began:.0f} s", flush=True)
    first, second = map(files_of, roots)
    size = sum(
        path.stat().st_size for path in roots[0].rglob("*") if path.is_file() and not path.is_symlink()
    )
    print(f"{len(first):,} files, {size / 1e6:.0f} MB")
    differing = [path for path in sorted(first.keys() | second.keys()) if first.get(path) != second.get(path)]
    wrong = [f"{path}: {first.get(path)} and {second.get(path)}" for path in differing]
    print(f"{len(differing)} differ between two builds")
    wrong += [*out_of_place(roots[0]), *says(roots[0])]
    print("\n".join(wrong) or "nothing is wrong")
    return int(bool(wrong))


def main() -> int:
    return in_work_folder(check, __doc__)


def in_work_folder(look: Callable[[Path, Path], int], what: str | None) -> int:
    """Have `look` work in the folder and with the interpreter that the command line names."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, help="a folder for base and builds (3 GB); without one: for this time"
    )
    default = Path(sysconfig.get_config_var("BINDIR")) / f"python3.{sys.version_info.minor}"
    parser.add_argument("--python", type=Path, default=default, help="the interpreter for the base: 3.13")
    options = parser.parse_args()
    for program in ("buildah", "debootstrap"):
        if shutil.which(program) is None:
            parser.error(f"{program} is not here: apt-get install buildah debootstrap")
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
        return look(options.work, options.python)
    with tempfile.TemporaryDirectory(prefix="sidecar-image-") as work:
        return look(Path(work), options.python)


if __name__ == "__main__":
    sys.exit(main())
