"""A real browser for tests: Debian's Chromium without a window, and all that its console said."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

CHROMIUM: Final = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (Debian's package `chromium`)"
)
PICTURES: Final = Path(__file__).parents[2] / "build" / "dashboard"
"""Where pictures are kept for whoever asks for them with `SIDECAR_PICTURES=1`; git ignores it."""


@dataclass
class Console:
    """What a page complained about: errors and warnings of its console, and what nobody caught."""

    said: list[str] = field(default_factory=list)

    def listen(self, page: Any) -> None:
        page.on("console", lambda one: one.type in ("error", "warning") and self.said.append(one.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))

    def take(self) -> list[str]:
        """What was said since the last time."""
        taken, self.said = self.said, []
        return taken


@asynccontextmanager
async def browser() -> AsyncIterator[Any]:
    """A running Chromium; `new_page` and `new_context` are Playwright's."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield running
        finally:
            await running.close()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[Any, Console]]:
    """A page of its own browser, at `url`."""
    async with browser() as running, page_in(running, url) as opened:
        yield opened


@asynccontextmanager
async def page_in(running: Any, url: str, **options: Any) -> AsyncIterator[tuple[Any, Console]]:
    """A page at `url` that shares nothing with others of that browser. `options`: of Playwright's `new_context`."""
    context = await running.new_context(**{"viewport": {"width": 1600, "height": 1000}, **options})
    try:
        page = await context.new_page()
        page.set_default_timeout(60_000)
        console = Console()
        console.listen(page)
        await page.goto(url)
        yield page, console
    finally:
        await context.close()


async def keep_picture(page: Any, name: str, **options: Any) -> None:
    """If anybody wants it: painting takes longer than all that is asserted of a page."""
    if os.environ.get("SIDECAR_PICTURES"):
        PICTURES.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=PICTURES / f"{name}.png", **options)
