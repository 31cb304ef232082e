"""The Dockerfile: clean by hadolint, and what it promises."""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.deploy.tools import tool

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "deploy/image"
LOCK = (IMAGE / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FLOORS = {
    "aiohttp": "3.14",
    "urllib3": "2.6.3",
    "requests": "2.32.4",
    "protobuf": "6.33.5",
    "idna": "3.7",
    "pygments": "2.15",
}
"""What is older has known CVEs. Some of them are others' dependencies, which no bound of ours names."""
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.mark.timeout(300)
def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([tool("hadolint"), str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    "line",
    [
        r"USER 65532:65532",
        r"STOPSIGNAL SIGTERM",
        r"MALLOC_MMAP_THRESHOLD_=16777216",
        r"MALLOC_TRIM_THRESHOLD_=134217728",
        r"MALLOC_TOP_PAD_=4194304",
        r'ENTRYPOINT \["sidecar"\]',
        r'HEALTHCHECK .* CMD \["sidecar", "healthcheck"\]',
        r"ARG PYTHON=3\.\d+\.\d+-slim-\w+",
        r"FROM scratch",
        r"--require-hashes",
        r"COPY --from=build /root-of-image /",
    ],
)
def test_the_image_has(line: str) -> None:
    assert re.search(line, DOCKERFILE)


def test_its_version_is_the_packages() -> None:
    assert DOCKERFILE.count(f"ARG VERSION={PROJECT['version']}\n") == 2


def test_everything_copied_is_let_through_by_dockerignore() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for source in sources.split()
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


# What is installed


def locked() -> dict[str, Version]:
    return {name: Version(version) for name, version in re.findall(r"^([\w.-]+)==(\S+)", LOCK, re.MULTILINE)}


def test_the_lock_has_every_dependency_within_its_bounds() -> None:
    """If not: see deploy/image/README.md."""
    found = locked()
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["redis"]]:
        wanted = Requirement(line)
        name = wanted.name.lower().replace("_", "-")
        assert found[name.replace(".", "-")] in wanted.specifier, line


@pytest.mark.parametrize("python", ["3.11.0", "3.11.3", "3.13.0", "3.14.0"])
def test_the_lock_has_what_its_packages_need_on_each_python_that_the_project_takes(python: str) -> None:
    """Not the image's alone: a release is installed by it too, on whatever Python makes it."""
    machine = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    found = locked()
    missing = [
        f"{package.metadata['Name']}: {line}"
        for package in distributions(path=[sysconfig.get_path("purelib")])
        if package.metadata["Name"].lower().replace("_", "-") in found
        for line in package.requires or ()
        if "extra" not in line
        and ((needed := Requirement(line)).marker is None or needed.marker.evaluate(machine))
        and needed.name.lower().replace("_", "-").replace(".", "-") not in found
    ]
    assert missing == []


def test_each_package_of_the_lock_has_hashes_and_no_address() -> None:
    blocks = re.split(r"\n(?=\w)", LOCK.strip())
    assert len(blocks) == len(locked())
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in LOCK


@pytest.mark.parametrize(("name", "floor"), FLOORS.items())
def test_no_package_is_below_a_known_cve(name: str, floor: str) -> None:
    assert locked()[name] >= Version(floor)


def test_aiohttp_is_bounded_for_those_who_install_without_the_lock() -> None:
    (bound,) = [Requirement(line) for line in PROJECT["dependencies"] if line.startswith("aiohttp")]
    assert "3.13.9" not in bound.specifier


def test_the_bill_of_materials_tells_each_package_and_its_needs() -> None:
    sbom = runpy.run_path(str(IMAGE / "sbom.py"))["sbom"]
    installed = list(distributions(path=[sysconfig.get_path("purelib")]))
    first, second = (
        json.dumps(sbom(found, "sidecar-proxy", "0.2.0")) for found in (installed, installed[::-1])
    )
    assert first == second
    told = json.loads(first)
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    references = [one["bom-ref"] for one in told["components"]]
    assert len(references) == len(set(references))
    assert any(reference.startswith("pkg:pypi/aiohttp@") for reference in references)
    needs = {one["ref"]: one["dependsOn"] for one in told["dependencies"]}
    (aiohttp,) = [ref for ref in needs if ref.startswith("pkg:pypi/aiohttp@")]
    assert any(ref.startswith("pkg:pypi/multidict@") for ref in needs[aiohttp])
    assert all(set(below) <= set(references) for below in needs.values())


# Built twice


@pytest.mark.timeout(300)
def test_the_wheel_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    digests = set()
    for number in range(2):
        copy = tmp_path / f"source{number}"
        copy.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            (copy / name).write_bytes((ROOT / name).read_bytes())
        shutil.copytree(ROOT / "sidecar", copy / "sidecar", ignore=shutil.ignore_patterns("__pycache__"))
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=copy)
        assert done.returncode == 0, done.stderr
        (wheel,) = (copy / "dist").glob("*.whl")
        digests.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two roots of the Python that runs this, and a folder with a program."""
    work = tmp_path_factory.mktemp("image")
    folder = work / "program"
    folder.mkdir()
    (folder / "say.py").write_text(SAYS)
    called = (
        work / "called/python"
    )  # as a venv has it: a link to another link, both outside of what is copied
    called.parent.mkdir()
    called.symlink_to(os.path.realpath(sys.executable))
    (folder / "python").symlink_to(called)
    build = runpy.run_path(str(IMAGE / "root.py"))["build"]
    found = [work / "one", work / "two"]
    for root in found:
        build(folder, root, ROOT / "config/minimal.yaml")
    return found


SAYS = """
import asyncio, ctypes, multiprocessing, pwd, socket, sqlite3, ssl, sys, threading
thread = threading.Thread(target=print, args=("thread",))
thread.start()
thread.join()
print(socket.getaddrinfo("127.0.0.1", 80)[0][0].name, ssl.create_default_context().cert_store_stats()["x509_ca"] > 0)
print(pwd.getpwuid(65532).pw_name, asyncio.run(asyncio.sleep(0, "loop")))
"""


@pytest.mark.timeout(300)
def test_a_root_is_the_same_byte_for_byte(roots: list[Path]) -> None:
    def told(root: Path) -> dict[str, tuple[int, int, bytes]]:
        found = {}
        for path in sorted(root.rglob("*")):
            status = path.lstat()
            link = os.readlink(path).encode() if path.is_symlink() else b""
            content = hashlib.sha256(path.read_bytes()).digest() if not link and path.is_file() else link
            found[str(path.relative_to(root))] = (status.st_mode, int(status.st_mtime), content)
        return found

    first, second = map(told, roots)
    assert len(first) > 1000
    assert first == second


@pytest.mark.timeout(300)
def test_nothing_in_a_root_gives_whoever_gets_in_a_shell_or_an_installer(roots: list[Path]) -> None:
    names = {path.name for path in roots[0].rglob("*")}
    assert not names & {
        "sh",
        "bash",
        "dash",
        "busybox",
        "apt",
        "dpkg",
        "perl",
        "gcc",
        "pip",
        "ensurepip",
        "test",
        "tkinter",
    }
    elf = [
        path
        for path in roots[0].rglob("*")
        if path.is_file() and not path.is_symlink() and os.access(path, os.X_OK)
    ]
    programs = [path for path in elf if ".so" not in path.name and path.read_bytes()[:4] == b"\x7fELF"]
    assert [path.name.startswith("python3") for path in programs] == [True]


@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter another root")
def test_a_program_runs_in_a_root(roots: list[Path]) -> None:
    program = roots[0].parent / "program"
    inside = [str(program / "python"), "-I", str(program / "say.py")]
    command = ["/usr/sbin/chroot", "--userspec=65532:65532", str(roots[0]), *inside]
    done = subprocess.run(command, capture_output=True, text=True, env={})
    assert done.returncode == 0, done.stderr
    thread, family, *rest = done.stdout.split()
    assert (thread, family[:7], rest) == ("thread", "AF_INET", ["True", "sidecar", "loop"])
