"""The pages are so: their links lead somewhere, their files are there, and what they show is what comes out."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.config.load import load_text
from sidecar.config.tell.reference import anchor
from tests.support.ports import free_ports
from tests.support.process import sidecar

ROOT = Path(__file__).parent.parent
_HIDDEN = {".git", ".venv", "node_modules"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not _HIDDEN & set(path.relative_to(ROOT).parts) and ".pytest" not in str(path)
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_REFERENCE = re.compile(r"^\[[^\]]+\]: (\S+)$", re.MULTILINE)
_NAMED = re.compile(r"`((?:\.ci|config|deploy|sidecar|tests)/[\w./-]+|[\w-]+/[\w./-]+\.(?:py|yaml|md|json))`")
_MODULE = re.compile(r"python -m (tests\.[\w.]+)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


each_page = pytest.mark.parametrize("page", PAGES, ids=name)


def prose(page: Path) -> str:
    """Without what stands in fences."""
    return _FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        slug = anchor(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return set(found)


def test_the_pages_are_found() -> None:
    assert {"README.md", "CHANGELOG.md", "config/REFERENCE.md", "deploy/README.md"} <= set(map(name, PAGES))


@each_page
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = []
    for target in (*_LINK.findall(prose(page)), *_REFERENCE.findall(prose(page))):
        if "://" in target:
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (fragment and fragment not in anchors(file)):
            broken.append(target)
    assert broken == []


@each_page
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    places = (ROOT, page.parent, ROOT / "sidecar", ROOT / "tests")
    named = set(_NAMED.findall(prose(page)))
    assert [path for path in sorted(named) if not any((place / path).exists() for place in places)] == []
    modules = {module.replace(".", "/") for module in _MODULE.findall(page.read_text())}
    assert [
        path for path in sorted(modules) if not ((ROOT / f"{path}.py").exists() or (ROOT / path).is_dir())
    ] == []


@each_page
def test_every_whole_configuration_of_a_page_is_good(page: Path) -> None:
    for mark, text in _files(page):
        if mark != "bad.yaml" and "\nroutes:" in text:
            assert load_text(text).snapshot.routes


@pytest.mark.parametrize("page", [page for page in PAGES if "\n```console\n$ " in page.read_text()], ids=name)
def test_every_command_of_a_page_prints_what_the_page_shows(
    page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the files that the page shows. A line `…` stands for any number of lines."""
    monkeypatch.chdir(tmp_path)
    for file, text in _files(page):
        Path(file).write_text(text)
    for command, shown in _commands(page):
        words = shlex.split(command)
        assert words[0] == "sidecar"
        main(words[1:])
        out, err = capsys.readouterr()
        printed = out + err
        pattern = re.escape(shown).replace(re.escape("…\n"), "(?:.*\n)*")
        assert re.fullmatch(pattern, printed), f"$ {command}\n{printed}"


@pytest.mark.process
async def test_the_log_of_a_reload_is_as_the_guide_shows_it(tmp_path: Path) -> None:
    page = ROOT / "config" / "README.md"
    files = dict(_files(page))
    inbound, outbound, probes, admin = free_ports(4)
    own = f"""\
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}, outbound: {{address: "127.0.0.1:{outbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
"""
    file = tmp_path / "sidecar.yaml"
    file.write_text(files["sidecar.yaml"] + own)
    async with sidecar(file, probes, tmp_path / "log") as running, asyncio.timeout(100):
        file.write_text(files["new.yaml"] + own)
        await running.logged("payments-report added")
        file.write_text(files["bad.yaml"] + own)
        log = await running.logged('"configuration rejected"')
    told = [json.loads(line) for line in log.splitlines() if '"kind":"config.' in line]
    for line in told:
        for key in ("time", "level", "duration_ms"):
            line.pop(key, None)
    shown = "".join(re.findall(r"<!-- log -->\n```\n(.*?)```", page.read_text(), re.DOTALL))
    assert told == [json.loads(line) for line in shown.replace("sidecar.yaml:", f"{file}:").splitlines()]


def _files(page: Path) -> Iterator[tuple[str, str]]:
    """The files that a page shows: a comment `<!-- file: NAME -->` stands before each."""
    yield from re.findall(
        r"<!-- file: ([\w.-]+) -->\n```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL
    )


def _commands(page: Path) -> Iterator[tuple[str, str]]:
    for language, text in _FENCE.findall(page.read_text()):
        if language == "console":
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, shown = part.partition("\n")
                yield command, shown
