"""The dashboard in a real browser, before a real sidecar with real traffic."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sidecar.admin.events import MAX_READERS
from tests.process.shop import NAMES, Shop, shop
from tests.support.browser import keep_picture, needs_chromium, page_in
from tests.support.relay import relay

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module"), needs_chromium]

SIZES = {"wide": (1600, 1000), "middle": (1100, 800), "narrow": (400, 900)}
PAYMENTS = "checkout-to-payments"
LOOKS = (("light", "wide"), ("light", "middle"), ("light", "narrow"), ("dark", "narrow"))
"""Where room is short, in either theme: they differ in colours, and in what has a border."""
HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=2</script>'
HOSTILE_KEY = "<script>window.pwned = 3</script>"
"""What follows its `=` could be a secret, so no message shows that."""


def row(page: Any, name: str) -> Any:
    """The row of a table that names the route."""
    return page.locator("#main tbody tr", has=page.get_by_role("link", name=name, exact=True))


async def is_live(page: Any) -> None:
    await page.locator("#connection[data-mark=good]").wait_for()


async def reads(locator: Any, words: str) -> None:
    """Wait until the element says so, without the page being asked again."""
    await locator.filter(has_text=words).wait_for()


@asynccontextmanager
async def keeping(page: Any) -> AsyncIterator[None]:
    """The page is not loaded again within the block."""
    await page.evaluate("window.mark = 'the same'")
    yield
    assert await page.evaluate("window.mark") == "the same"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """A sidecar for tests that ask by a route of their own, and leave no other configuration behind."""
    async with shop(tmp_path_factory.mktemp("shared")) as to, to.sidecar():
        yield to


async def test_a_breaker_trips_before_the_eyes_and_is_forced_closed_with_the_button(
    tmp_path: Path, chromium: Any
) -> None:
    async with (
        shop(tmp_path) as to,
        to.sidecar(),
        page_in(chromium, to.url) as (page, console),
        keeping(page),
    ):
        await is_live(page)
        await reads(row(page, PAYMENTS).locator(".state"), "closed")
        to.moods[PAYMENTS] = 500
        assert await to.ask(PAYMENTS, 7) == [500] * 5 + [503] * 2
        await reads(row(page, PAYMENTS).locator(".state"), "open")
        await reads(page.locator("#tiles a", has_text="Breakers"), "1 open")
        await reads(page.locator("#aside"), "failures in a row")

        await page.get_by_role("link", name="Breakers", exact=True).click()
        breaker = row(page, PAYMENTS)
        await reads(breaker.locator(".c-trip"), "open: 5 × 500 127.0.0.1:")
        (told,) = (await to.hand.get(f"/breakers/{PAYMENTS}"))["breakers"]
        link = breaker.locator("a.trace")
        assert await link.get_attribute("href") == (
            f"http://jaeger.test:16686/trace/{told['history'][0]['causes'][-1]['trace_id']}"
        )
        assert await link.get_attribute("rel") == "noopener noreferrer"
        assert await breaker.locator(".c-candidate .state").inner_text() == "open"
        await reads(breaker.locator(".next"), "probe in")
        await reads(breaker.locator(".c-trip"), "limit 0 / 1 024 observed: not changed yet")

        to.moods.clear()
        await breaker.get_by_role("button", name="Close…").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("How long").select_option("5m")
        await dialog.get_by_label("Who you are").fill("ada@desk")
        assert (await to.hand.get("/status"))["breakers"]["open_count"] == 1  # it asks first
        await dialog.get_by_role("button", name="Force closed").click()
        await reads(breaker.locator(".c-state"), "forced closed")
        await reads(breaker.locator(".next"), "ends in 4 min 5")
        await reads(breaker.locator(".c-trip"), "forced_closed: by ada@desk since ")
        (told,) = (await to.hand.get(f"/breakers/{PAYMENTS}"))["breakers"]
        assert (told["state"], told["is_overridden"]) == ("forced_closed", True)
        assert await to.ask(PAYMENTS) == [200]

        await breaker.get_by_role("button", name="Auto…").click()
        await dialog.get_by_role("button", name="Make automatic").click()
        await reads(breaker.locator(".c-state"), "closed")
        assert console.take() == []


async def test_a_page_of_another_origin_may_link_to_it_and_not_frame_it(shared: Shop, chromium: Any) -> None:
    to = shared
    async with page_in(chromium, "about:blank") as (page, _):
        to.says = f'<a href="{to.url}">the dashboard</a><iframe src="{to.url}"></iframe>'
        async with page.expect_response(to.url) as framed:
            await page.goto(f"http://localhost:{to.inbound}/search")
        assert (await framed.value).status == 403
        async with page.expect_request(to.url) as followed:
            await page.get_by_role("link", name="the dashboard").click()
        assert (await (await followed.value).all_headers())["sec-fetch-site"] == "cross-site"
        await is_live(page)
        await row(page, PAYMENTS).wait_for()


async def test_a_refused_change_is_shown_with_its_lines(tmp_path: Path, chromium: Any) -> None:
    async with shop(tmp_path) as to, to.sidecar(), page_in(chromium, f"{to.url}#/config") as (page, console):
        await is_live(page)
        good = to.file.read_text()
        to.file.write_text(good + "oops: 1\n")
        await page.get_by_role("button", name="Reload").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_role("button", name="Reload", exact=True).click()
        await reads(
            dialog.get_by_role("alert"), "Refused (422) the configuration is bad; the one in use stays"
        )
        await reads(dialog.locator("pre"), "unknown key 'oops'")
        await page.keyboard.press("Escape")
        await reads(page.locator("#main .trouble"), "1 problem in the configuration that was refused")
        await reads(page.locator("#main pre"), "oops: 1")
        await reads(page.locator("#tiles a", has_text="Configuration"), "the last reload failed")

        to.file.write_text(good.replace("consecutive_failures: 5, ", "consecutive_failures: 7, ", 1))
        await page.get_by_role("button", name="Reload").click()
        await dialog.get_by_role("button", name="Reload", exact=True).click()
        await reads(page.locator("#toast"), "The configuration was reloaded.")
        await reads(page.locator("#main .diff"), PAYMENTS)
        await reads(page.locator("#main .diff"), "circuit_breaker.consecutive_failures: 5 → 7")
        await page.get_by_role("heading", name="Generation 2", exact=True).wait_for()
        # Chromium itself notes each answer of 4xx; nothing else may have been said.
        assert {text.split(" with a status of")[0] for text in console.take()} <= {
            "Failed to load resource: the server responded"
        }


async def test_hostile_text_stays_text(tmp_path: Path, chromium: Any) -> None:
    async with (
        shop(tmp_path, service=HOSTILE) as to,
        to.sidecar(),
        page_in(chromium, to.url) as (page, console),
    ):
        await is_live(page)
        await reads(page.locator("h1"), HOSTILE)
        to.moods[PAYMENTS] = 500
        await to.ask(PAYMENTS, 5, **{"x-request-id": HOSTILE})
        await reads(row(page, PAYMENTS).locator(".state"), "open")
        to.file.write_text(f"{to.file.read_text()}{json.dumps(HOSTILE_KEY)}: 1\n")
        for view in ("config", f"route/{PAYMENTS}", "route/%3Cimg%20src%3Dx%3E", "activity", "breakers"):
            await page.goto(f"{to.url}#/{view}")
            if view == "config":
                await reads(page.locator("#main pre"), "<script>")
            await page.wait_for_function("document.querySelector('#main').textContent.length > 20")
        assert await page.evaluate("window.pwned") is None
        assert await page.locator("img[src=x], #main script, #aside script").count() == 0
        markup = "document.body.innerHTML = '<b>'"
        assert "TrustedHTML" in await page.evaluate(
            f"(() => {{ try {{ {markup} }} catch (e) {{ return String(e) }} }})()"
        )
        assert [
            text for text in console.take() if "TrustedHTML" not in text and "Failed to load" not in text
        ] == []


async def test_a_lost_connection_is_shown_and_found_again(tmp_path: Path, chromium: Any) -> None:
    async with shop(tmp_path) as to:
        async with to.sidecar():
            context = page_in(chromium, to.url)
            page, console = await context.__aenter__()
            await is_live(page)
            assert console.take() == []
            assert await page.locator("#banner").is_hidden()
        try:
            async with keeping(page):
                await reads(page.get_by_role("alert"), "Connection to the process lost: no answer.")
                await reads(page.locator("#connection"), "connection lost")
                assert await page.locator("body").get_attribute("data-lost") == ""
                async with to.sidecar():
                    await is_live(page)
                    assert await page.locator("#banner").is_hidden()
                    await reads(page.locator("#aside"), "another process answers")
                    to.moods[PAYMENTS] = 500
                    await to.ask(PAYMENTS, 5)
                    await reads(row(page, PAYMENTS).locator(".state"), "open")
        finally:
            await context.__aexit__(None, None, None)


async def test_a_thousand_routes_are_paged_filtered_and_ordered(tmp_path: Path, chromium: Any) -> None:
    names = tuple(f"r{number}" for number in range(1000))
    async with shop(tmp_path, names=names) as to, to.sidecar(), page_in(chromium, to.url) as (page, console):
        await is_live(page)
        rows = page.locator("#main tbody tr")
        await reads(page.locator(".pager"), "1–50 of 1 000")
        assert await rows.count() == 50
        await page.get_by_role("button", name="Next page").click()
        await reads(page.locator(".pager"), "51–100 of 1 000")
        await page.get_by_role("searchbox").fill("r77")
        await reads(page.locator(".pager"), "1–11 of 11 (of 1 000)")
        assert await rows.count() == 11
        to.moods["r777"] = 500
        await to.ask("r777", 5)
        await page.get_by_role("searchbox").fill("")
        chip = page.get_by_role("button", name="open 1", exact=True)
        await chip.click()
        await reads(page.locator(".pager"), "1–1 of 1 (of 1 000)")
        assert await rows.locator(".c-name a").all_inner_texts() == ["r777"]
        await chip.click()
        await page.get_by_role("button", name="Errors", exact=True).click()
        await reads(rows.first, "r777")
        assert await page.locator("th.c-errors").get_attribute("aria-sort") == "descending"
        assert console.take() == []


async def test_the_keyboard_alone_is_enough(shared: Shop, chromium: Any) -> None:
    to = shared
    async with page_in(chromium, f"{to.url}#/breakers") as (page, console):
        await is_live(page)
        await row(page, PAYMENTS).wait_for()
        seen = await tabbed(page, until=f"Force open: breaker of {PAYMENTS} and app")
        assert seen[0] == "Skip to the content"
        assert {"Reload", "Drain", "Breakers", "open 0", "State"} <= set(seen)
        await page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        await dialog.wait_for()
        await page.keyboard.press("Escape")
        await dialog.wait_for(state="hidden")
        assert (
            await page.evaluate("document.activeElement.title")
            == f"Force open: breaker of {PAYMENTS} and app"
        )
        await page.keyboard.press("Enter")
        await tabbed(page, until="Force open")
        await page.keyboard.press("Enter")
        await reads(row(page, PAYMENTS).locator(".c-state"), "forced open")
        assert await to.ask(PAYMENTS) == [503]
        assert console.take() == []
    await to.hand.post(f"/breakers/{PAYMENTS}/auto")


async def tabbed(page: Any, *, until: str) -> list[str]:
    """Press Tab until the focus is on that; the names that had it on the way. Each shows that it has the focus."""
    names: list[str] = []
    for _ in range(60):
        await page.keyboard.press("Tab")
        name, title, outline = await page.evaluate(
            """() => { const one = document.activeElement; const style = getComputedStyle(one);
            return [(one.innerText || one.getAttribute('aria-label') || '').replace(/\\s+/g, ' ').trim(), one.title,
                    style.outlineStyle] }"""
        )
        names.append(name)
        assert outline != "none", name
        if until in (name, title):
            return names
    raise AssertionError(f"no way to {until}: {names}")


@asynccontextmanager
async def guarded(folder: Path) -> AsyncIterator[Shop]:
    """A sidecar that asks for the token `hush`."""
    (folder / "token").write_text("hush\n")
    async with shop(folder) as to:
        to.file.write_text(to.file.read_text().replace("trace_url:", "token_file: token, trace_url:"))
        async with to.sidecar():
            yield to


async def give_token(page: Any, token: str = "hush") -> None:
    field = page.get_by_label("Token of the admin listener")
    await field.fill(token)
    await page.keyboard.press("Enter")


async def test_with_a_token_file_the_page_asks_for_the_token_and_hears_of_events_with_it(
    tmp_path: Path,
    chromium: Any,
) -> None:
    async with guarded(tmp_path) as to, page_in(chromium, to.url) as (page, _):
        await give_token(page, "wrong")
        await reads(page.get_by_role("alert"), "asks for its token")
        await give_token(page)
        await is_live(page)
        to.moods[PAYMENTS] = 500
        await to.ask(PAYMENTS, 5)
        await reads(row(page, PAYMENTS).locator(".state"), "open")
        await reads(page.locator("#aside"), "failures in a row")


async def test_a_stream_that_breaks_goes_on_where_it_was(tmp_path: Path, chromium: Any) -> None:
    async with (
        guarded(tmp_path) as to,
        relay(to.hand.port) as between,
        page_in(chromium, f"http://127.0.0.1:{between.port}/") as (page, _),
    ):
        await give_token(page)
        await is_live(page)
        to.moods[PAYMENTS] = 500
        await to.ask(PAYMENTS, 5)
        await reads(page.locator("#aside"), "failures in a row")
        async with page.expect_request("**/events") as again:
            between.break_off()
        asked = (await again.value).headers
        life, _, number = asked["last-event-id"].rpartition("-")
        assert (asked["authorization"], len(life), number) == ("Bearer hush", 8, "1")
        await is_live(page)


async def test_where_there_is_no_place_for_a_stream_the_page_polls_until_there_is(
    shared: Shop, chromium: Any
) -> None:
    to = shared
    async with contextlib.AsyncExitStack() as others:
        for _ in range(MAX_READERS):
            await others.enter_async_context(to.hand.events())
        async with page_in(chromium, to.url) as (page, _):
            await reads(page.locator("#connection"), "polling, no events")
            to.moods["accounts"] = 500
            await to.ask("accounts", 5)
            await reads(row(page, "accounts").locator(".state"), "open")
            assert await page.locator("#banner").is_hidden()


VIEWS = (
    "routes",
    "breakers",
    "budgets",
    "upstreams",
    "config",
    "process",
    "activity",
    f"route/{PAYMENTS}",
)


async def test_nothing_has_to_be_scrolled_sideways_at_any_width_in_either_theme(
    tmp_path: Path, chromium: Any
) -> None:
    async with shop(tmp_path) as to, to.sidecar():
        await busy_day(to)
        for theme, name in LOOKS:
            width, height = SIZES[name]
            viewport = {"width": width, "height": height}
            async with page_in(chromium, to.url, viewport=viewport, color_scheme=theme) as (page, _):
                await is_live(page)
                for view in VIEWS:
                    await page.goto(f"{to.url}#/{view}")
                    await fits(page, f"{view} of {theme}-{name}")
                    picture = f"{theme}-{name}-{view.partition('/')[0]}"
                    await keep_picture(page, picture, full_page=name != "wide")


async def fits(page: Any, name: str) -> None:
    await page.wait_for_function("document.querySelector('#main').textContent.length > 40")
    wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"{name} is {wide} px wider than the window"
    cut = await page.evaluate(
        "[...document.querySelectorAll('.table, .card')]"
        ".filter(one => one.scrollWidth > one.clientWidth).length"
    )
    assert cut == 0, f"{cut} tables or cards of {name} have to be scrolled sideways"


async def busy_day(to: Shop) -> None:
    """Some of everything: quick and slow routes, one that fails, one that is forced, a reload."""
    to.moods |= {PAYMENTS: 500, "legacy-soap": 503}
    to.seconds |= {"search": 0.03, "recommendations": 0.02}
    await asyncio.gather(*(to.ask(name, 40) for name in NAMES))
    await to.hand.post("/breakers/webhooks/open?for=5m")
    await to.hand.post("/breakers/invoices/close")
    to.file.write_text(to.file.read_text().replace("consecutive_failures: 3", "consecutive_failures: 4", 2))
    await to.hand.post("/reload")
    config = await to.hand.get("/config?route=")
    assert config["last_change"]["routes"]["changed"] == 2
