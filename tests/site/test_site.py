"""The pages as a site: no warning, no dead link, generated pages that are whole, nothing that shuts people out."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from contextlib import suppress
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from sidecar.admin.prometheus import metric_name
from sidecar.cli.commands import COMMANDS
from sidecar.core.families.catalogue import FAMILIES
from sidecar.core.installed import version
from sidecar.forwarding.answers import TABLE
from tests.site.axe import serving, violations
from tests.support.browser import needs_chromium, opened
from tests.test_docs import PAGES, ROOT

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("material") is None, reason="PyPI's mkdocs-material is not installed"
    ),
]
TWO = ["deploy/helm/index.html", "sidecar/upstream/index.html"]
"""With tables and code. All pages, which take minutes, are `.ci/run`'s: `python -m tests.site.axe build/site`."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("site")
    # without --quiet, which keeps warnings from being counted
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(to)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, "WARNING -" in done.stderr) == (0, False), done.stderr
    return to


class Page(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.names: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if value is None:
                continue
            if key in ("id", "name"):
                self.names.add(value)
            elif tag == "a" and key == "href":
                self.links.append(value)
            elif key == "src" or (tag == "link" and key == "href"):
                self.loads.append(value)


def test_no_link_is_dead_and_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 20
    dead = []
    for path, page in pages.items():
        for target in (*page.links, *page.loads):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            is_there = to.is_file() and (
                not parts.fragment or to not in pages or parts.fragment in pages[to].names
            )
            if not is_there:
                dead.append(f"{path.relative_to(site)}: {target}")
    assert dead == []
    assert [load for page in pages.values() for load in page.loads if "//" in load] == []


def test_every_page_of_the_repository_is_in_it_and_in_the_navigation(site: Path) -> None:
    missing = []
    for page in PAGES:
        name = page.relative_to(ROOT)
        html = name.with_name("index.html") if name.name == "README.md" else name.with_suffix(".html")
        if str(html) not in _navigated(site):
            missing.append(str(name))
    assert missing == []


@cache
def _navigated(site: Path) -> set[str]:
    """Pages that some page's navigation leads to: with tabs, a page has that of its own section."""
    found = set()
    for path in site.rglob("index.html"):
        for link in Page(path).links:
            to = (path.parent / link.partition("#")[0]).resolve()
            if to.is_relative_to(site):
                found.add(str(to.relative_to(site)))
    return found


def test_generated_pages_tell_everything_that_there_is(site: Path) -> None:
    def of(name: str) -> str:
        return (site / "reference" / f"{name}.html").read_text()

    assert [name for name in COMMANDS if f"usage: sidecar {name}" not in of("commands")] == []
    assert [
        one.name for one in FAMILIES if one.name not in of("metrics") or metric_name(one) not in of("metrics")
    ] == []
    assert [reason for reason in TABLE if f"<code>{reason.value}</code>" not in of("messages")] == []
    api = json.loads((ROOT / "sidecar/admin/openapi.json").read_text())
    assert [path for path in api["paths"] if f" {path}</code>" not in of("admin-api")] == []
    assert [
        name for name in api["components"]["schemas"] if f'id="{name.lower()}"' not in of("admin-api")
    ] == []


async def searched(page: Any, found: Any) -> None:
    """Type until something is found: keys that go up before the page's script listens go up for nobody."""
    from playwright.async_api import TimeoutError as PlaywrightTimeout

    field = page.locator("input.md-search__input")
    for _ in range(12):
        await field.clear()
        await field.press_sequentially("candidate")  # the script reads the field when a key goes up
        with suppress(PlaywrightTimeout):
            await found.wait_for(timeout=10_000)  # a worker of the page reads the index first
            return
    raise AssertionError("nothing was found")


@needs_chromium
async def test_a_word_that_is_searched_for_is_found(site: Path) -> None:
    assert f"<title>sidecar {version()}</title>" in (site / "index.html").read_text()
    with serving(site) as address:
        async with opened(f"{address}/index.html") as (page, console):
            found = page.locator(".md-search-result__item h1")
            await searched(page, found.first)
            assert any("breaker" in title.lower() for title in await found.all_inner_texts())
            assert console.take() == []


@needs_chromium
async def test_axe_finds_nothing(site: Path) -> None:
    assert await violations(site, TWO) == []
