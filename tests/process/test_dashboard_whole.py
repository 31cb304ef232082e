"""The dashboard as a whole: what it shows of the time before it was opened, what it leaves legible, and for whom."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.process.shop import Shop, shop
from tests.support.browser import keep_picture, needs_chromium, page_in
from tests.support.ports import free_ports

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module"), needs_chromium]

VIEWS = (
    "routes",
    "breakers",
    "map",
    "budgets",
    "upstreams",
    "config",
    "process",
    "tap",
    "activity",
    "route/search",
)
AT_REST = ("routes", "map", "activity")
"""Those that are empty then, or nearly so."""
WIDTHS = (320, 390, 1100, 1280, 1440)
BAD = "checkout-to-payments"
TOO_WIDE = """[...document.querySelectorAll('body, .table, .card, .tile, .top, .views, aside, main')]
    .filter((one) => one.scrollWidth > one.clientWidth + 1)
    .map((one) => `${one.className || one.tagName} ${one.textContent.slice(0, 40)}`)"""
"""What would have to be scrolled sideways, or is cut."""
TOO_SMALL = """[...document.querySelectorAll('button, select, input, .views a, .tile')]
    .filter((one) => one.offsetParent && !one.closest('th') && Math.min(one.offsetHeight, one.offsetWidth) < 24
        && one.type !== 'checkbox')
    .map((one) => `${one.tagName} ${one.className} ${one.offsetWidth} × ${one.offsetHeight}`)"""


@asynccontextmanager
async def both_ways(folder: Path) -> AsyncIterator[Shop]:
    """The shop with an app that calls others."""
    async with shop(folder) as to:
        text = to.file.read_text()
        (outbound,) = free_ports(1)
        text = text.replace("}}\nadmin", f'}}, outbound: {{address: "127.0.0.1:{outbound}"}}}}\nadmin', 1)
        app = re.search(r"app: (.*)\n", text)
        assert app is not None
        text = text.replace(app[0], f"{app[0]}  payments: {app[1]}\n  inventory: {app[1]}\n", 1)
        for name in ("payments", "inventory"):
            text += (
                f"- {{name: to-{name}, listener: outbound, match: {{hosts: [{name}]}}, upstream: {name}}}\n"
            )
        to.file.write_text(text)
        to.outbound = outbound
        yield to


async def call(to: Shop, host: str, path: str, times: int) -> None:
    """The app's own calls."""
    for _ in range(times):
        url = f"http://127.0.0.1:{to.outbound}/{path}"
        async with to.session.get(url, headers={"Host": host}) as answer:
            await answer.read()


async def outage(to: Shop) -> None:
    to.moods[BAD] = 500
    await to.ask(BAD, 8)
    await call(to, "payments", BAD, 8)


async def is_live(page: Any) -> None:
    await page.locator("#connection[data-mark=good]").wait_for()


async def test_a_page_that_is_opened_in_an_outage_shows_what_came_before(
    tmp_path: Path, chromium: Any
) -> None:
    async with both_ways(tmp_path) as to, to.sidecar():
        await to.ask("search", 40)
        await call(to, "inventory", "inventory", 7)
        await outage(to)
        async with page_in(chromium, to.url) as (page, console):
            await is_live(page)
            headline = page.locator("#tiles a", has_text="Requests a second")
            await headline.locator(".more", has_text="over").wait_for()
            told = await page.locator("#tiles a", has_text="Errors").locator(".more").inner_text()
            assert told == "8 of 48", "of requests to the app alone, from before the page was there"
            calls = page.locator("#tiles a", has_text="Calls of the app")
            await calls.locator(".more", has_text="8 of 15").wait_for()
            search = page.locator("#main tbody tr", has_text="search")
            assert float(await search.locator(".c-rate").inner_text()) > 0

            drawn = page.locator("#aside .map")
            words = await drawn.get_attribute("aria-label")
            assert re.search(
                r"Clients call shop: [\d.]+/s, open; shop calls payments: [\d.]+/s, open;", words
            )
            assert "shop calls inventory: " in words
            assert await drawn.locator(".box[data-state=open]").count() == 2

            entry = page.locator("#aside .entry").first
            assert re.fullmatch(
                r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (UTC|[+-]\d\d:\d\d)",
                await entry.locator("time").inner_text(),
            )
            await to.hand.post(f"/breakers/{BAD}/close?for=5m")
            await page.locator("#aside .entry", has_text="forced closed").first.wait_for()
            await to.hand.post("/reload")
            await page.locator("#aside .entry", has_text="configuration").first.wait_for()

            await page.keyboard.press("/")
            assert await page.evaluate("document.activeElement.type") == "search"
            await page.keyboard.type("/pay")
            assert await page.locator("#main input[type=search]").input_value() == "/pay"
            await to.hand.post("/drain")
            await page.locator("#aside .entry", has_text="the process drains").wait_for()
            assert console.take() == []


async def test_the_tap_shows_what_passes_and_stops(tmp_path: Path, chromium: Any) -> None:
    async with (
        both_ways(tmp_path) as to,
        to.sidecar(),
        page_in(chromium, f"{to.url}#/tap") as (page, console),
    ):
        await is_live(page)
        await page.get_by_label("Route", exact=True).select_option(BAD)
        await page.get_by_role("button", name="Start").click()
        await page.get_by_role("status").filter(has_text="Reading").wait_for()
        while (await to.hand.get("/status"))["taps"]["readers"] == 0:
            await page.wait_for_timeout(20)
        await to.ask("search", 2)
        await outage(to)
        lines = page.locator("#main .tapped")
        await lines.nth(7).wait_for()
        assert await lines.count() == 8, "of the chosen route alone"
        newest = await lines.first.inner_text()
        assert "503" in newest
        assert f"GET 127.0.0.1:{to.inbound}/{BAD}" in newest
        assert "breaker open" in newest
        await page.get_by_role("button", name="Stop").click()
        await page.get_by_role("status").filter(has_text="Stopped").wait_for()
        assert await lines.count() == 8, "what was seen stays"
        for _ in range(5):  # more often than there are places: one that was left is free at once
            await page.get_by_role("button", name="Start").click()
            await page.get_by_role("status").filter(has_text="Reading").wait_for()
            await page.get_by_role("button", name="Stop").click()
            await page.get_by_role("status").filter(has_text="Stopped").wait_for()
        assert console.take() == []


async def test_nothing_is_cut_too_small_or_barred_from_anybody_at_rest_and_in_an_outage(
    tmp_path: Path,
    chromium: Any,
) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.async_playwright", reason="axe-playwright-python (PyPI) is not installed"
    ).Axe()
    async with both_ways(tmp_path) as to, to.sidecar():
        for mood, theme in (("rest", "light"), ("outage", "dark")):
            if mood == "outage":
                await to.ask("search", 40)
                await outage(to)
            context = await chromium.new_context(color_scheme=theme)
            page = await context.new_page()
            for view in VIEWS if mood == "outage" else AT_REST:
                await page.set_viewport_size({"width": 1280, "height": 900})
                await page.goto(f"{to.url}#/{view}")
                await is_live(page)
                await page.wait_for_function("document.querySelector('#main').textContent.length > 10")
                for width in WIDTHS:
                    await page.set_viewport_size({"width": width, "height": 900})
                    where = f"{view} at {width} px, {mood}"
                    assert await page.evaluate(TOO_WIDE) == [], where
                    assert await page.evaluate(TOO_SMALL) == [], where
                    is_beside = await page.locator("#aside").is_visible()
                    assert is_beside or view != "routes" or width < 1100, where
                if mood == "outage":
                    await keep_picture(page, f"outage-{view.partition('/')[0]}")
                found = await axe.run(page)
                assert found.violations_count == 0, f"{view}, {mood}: {found.generate_report()}"
            await context.close()
