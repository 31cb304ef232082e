"""The dashboard's files: what they may contain, how they are served, and what their logic computes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sidecar.admin.page import FOLDER, POLICY
from tests.scenarios.operator import operator
from tests.scenarios.stage import app_routes
from tests.support.proxy import HEADER, running

NOBODY = app_routes(9)
SCRIPTS = sorted(FOLDER.glob("*.js"))
ASSETS = sorted(FOLDER.iterdir())


# What they may contain


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_makes_no_markup_of_text_and_keeps_to_itself(path: Path) -> None:
    text = path.read_text()
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
    ):
        assert word not in text
    addresses = re.findall(r"https?://[^\s\"'`)]+", text)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"(?<![\w.])window\.\w+ =", text), "the store is the only state that is shared"


def test_the_page_names_every_script_so_that_none_is_waited_for_twice() -> None:
    page = (FOLDER / "index.html").read_text()
    named = set(re.findall(r"/dashboard/([\w-]+\.\w+)", page))
    assert named == {path.name for path in ASSETS} - {"index.html"}
    assert not re.search(r"<script(?! type=\"module\" src=\"/dashboard/main\.js\"></script>)", page)
    assert not re.search(r"\son\w+=|\sstyle=|<style|https?://(?!www\.w3\.org)", page)


def test_all_files_belong_to_the_package() -> None:
    """Nothing that git ignores, so nothing that the wheel would miss."""
    ignored = subprocess.run(
        ["git", "check-ignore", *map(str, ASSETS)], capture_output=True, text=True, check=False, cwd=FOLDER
    )
    assert ignored.stdout == ""
    assert sum(path.stat().st_size for path in ASSETS) < 170_000


# How they are served


async def test_the_page_and_its_files_are_served_with_a_policy_and_are_asked_about_anew() -> None:
    async with running(NOBODY) as worker:
        hand = operator(worker)
        for path, kind in (
            ("/", b"text/html; charset=utf-8"),
            ("/dashboard/main.js", b"text/javascript; charset=utf-8"),
            ("/dashboard/style.css", b"text/css; charset=utf-8"),
            ("/dashboard/icon.svg", b"image/svg+xml; charset=utf-8"),
        ):
            response = await hand.send("GET", path)
            assert (response.status, response.value(b"content-type")) == (200, kind), path
            assert response.value(b"content-security-policy") == POLICY.encode()
            assert response.value(b"x-content-type-options") == b"nosniff"
            assert response.value(b"cache-control") == b"no-cache"
            etag = response.value(b"etag")
            assert etag is not None
            again = await hand.send("GET", path, f"If-None-Match: {etag.decode()}")
            assert (again.status, again.body) == (304, b"")
            long = f"If-None-Match: {',' * 2000}{etag.decode()}"  # more than anybody sends is not read
            assert (await hand.send("GET", path, long)).status == 200
            assert (await hand.send("GET", path, 'If-None-Match: "another"')).status == 200
            assert (await hand.send("HEAD", path)).status == 200


def test_the_policy_lets_nothing_in_and_nothing_become_markup() -> None:
    parts = dict(part.strip().partition(" ")[::2] for part in POLICY.split(";"))
    assert parts["default-src"] == "'none'"
    assert parts["require-trusted-types-for"] == "'script'"
    assert {parts[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/",
        "/dashboard/nothing.js",
        "/dashboard/index.html",
        "/dashboard/..%2fserver.py",
        "/dashboard/%2e%2e/page.py",
    ],
)
async def test_there_is_nothing_else(path: str) -> None:
    async with running(NOBODY) as worker:
        assert (await operator(worker).send("GET", path)).status == 404


async def test_the_page_is_given_without_the_token_and_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hush\n")
    header = HEADER.replace(
        'admin: {address: "127.0.0.1:0"}', f'admin: {{address: "127.0.0.1:0", token_file: {tmp_path}/token}}'
    )
    async with running(NOBODY, header) as worker:
        hand = operator(worker)
        for path in ("/", "/dashboard/main.js"):
            assert (await hand.send("GET", path)).status == 200
        for path in ("/status", "/routes", "/events", "/dashboard/nothing.js"):
            assert (await hand.send("GET", path)).status == 401


async def test_another_name_that_was_pointed_here_gets_no_page() -> None:
    async with running(NOBODY) as worker:
        assert (await operator(worker).send("GET", "/", host="evil.example")).status == 403


# What their logic computes


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed (Debian's package `nodejs`)")
def test_the_logic_of_the_page(tmp_path: Path) -> None:
    copy = shutil.copytree(FOLDER, tmp_path / "dashboard")
    (copy / "package.json").write_text(json.dumps({"type": "module"}))
    done = subprocess.run(
        ["node", "--test", str(Path(__file__).with_name("logic.test.mjs"))],
        env={**os.environ, "DASHBOARD": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
