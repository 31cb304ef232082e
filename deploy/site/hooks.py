"""What mkdocs calls: the repository's pages become a site, by the paths that they have, with generated ones beside.

So links between pages work the same in an editor, in a repository's browser and here. A link to a file that is no
page (an example's YAML, a picture) brings the file with it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from sidecar.config.tell.reference import anchor
from sidecar.core.installed import version

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

import generated  # noqa: E402

_LEFT_OUT = {"tests", "build", "dist", "node_modules"}
_LINK = re.compile(r"\]\(([^()\s#]+)(#[^()\s]*)?\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_SECTIONS = {"sidecar": "Explanation", "config": "Guides", "deploy": "Guides"}
"""Where a page goes that the navigation does not name, by its folder; of another folder: the last of them."""


def pages() -> list[Path]:
    """Every page of the repository, in order."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _LEFT_OUT]
        found += [Path(folder, name) for name in names if name.endswith(".md")]
    return sorted(found)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Anchors as in a repository's browser, the version beside the name, and a navigation that leaves nothing out."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = lambda text, _: anchor(text)
    config.site_name = f"sidecar {version()}"
    config.theme.static_templates.discard("404.html")  # its search has no name for who hears the page
    named = set(_named(config.nav))
    sections = {next(iter(one)): next(iter(one.values())) for one in config.nav or ()}
    for page in pages():
        name = page.relative_to(ROOT).as_posix()
        if name not in named:
            sections[_SECTIONS.get(name.partition("/")[0], "Explanation")].append(name)
    return config


def _named(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for one in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _named(one)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages, the files that they link to, and the generated pages."""
    for page in pages():
        _add(files, page, config)
        for file in _linked_files(page):
            _add(files, file, config)
    for name, text in generated.pages():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def _add(files: Files, path: Path, config: MkDocsConfig) -> None:
    name = path.relative_to(ROOT).as_posix()
    if files.get_file_from_path(name) is None:
        files.append(File.generated(config, name, abs_src_path=str(path)))


def _linked_files(page: Path) -> Iterator[Path]:
    for target, _ in _LINK.findall(_FENCE.sub("", page.read_text())):
        path = (page.parent / target).resolve()
        if path.is_file() and path.suffix != ".md" and path.is_relative_to(ROOT):
            yield path
        elif path.is_dir():
            yield _first_of(path)


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """A site shows no folders: a link to one leads to what one reads first in it."""
    at = ROOT / Path(page.file.src_uri).parent

    def to_file(found: re.Match[str]) -> str:
        path = at / found[1]
        return f"]({found[1].rstrip('/')}/{_first_of(path).name})" if path.is_dir() else found[0]

    return _LINK.sub(to_file, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Markdown's tables always have a head; an empty cell of it is no heading."""
    return html.replace("<th></th>", "<td></td>")


def _first_of(folder: Path) -> Path:
    """Its page, or what is built from it.

    Raises:
        FileNotFoundError: it has neither.
    """
    for name in ("README.md", "kustomization.yaml"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{folder}: a page links to it; give it a README.md, or link to a file in it")
