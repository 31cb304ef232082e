"""axe-core on pages of the built site: python -m tests.site.axe build/site [PAGE…]; without PAGE all of them.

Each page in the light and in the dark scheme, from a server of its own (without one the theme hides its search). Exit
code 1 if a rule is violated.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

from tests.support.browser import browser

SCHEMES = ("light", "dark")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@contextmanager
def serving(site: Path) -> Iterator[str]:
    """The address of a server of these files."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def violations(site: Path, names: list[str]) -> list[str]:
    """A line for each violated rule: page, scheme, rule, how many places and the first of them."""
    found = []
    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text()
    with serving(site) as address:
        async with browser() as running:
            for scheme in SCHEMES:
                page = await running.new_page(color_scheme=scheme, viewport={"width": 1280, "height": 900})
                for name in names:
                    await page.goto(f"{address}/{name}")
                    await page.evaluate(axe)
                    result = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
                    found += [f"{name} ({scheme}): {_told(one)}" for one in result["violations"]]
    return found


def _told(violation: dict[str, Any]) -> str:
    nodes = violation["nodes"]
    return f"{violation['id']} at {len(nodes)} places, first {nodes[0]['html'][:120]}: {nodes[0]['failureSummary']}"


def main() -> int:
    site = Path(sys.argv[1])
    names = sys.argv[2:] or sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    found = asyncio.run(violations(site, names))
    print("\n".join(found))
    print(f"axe-core: {len(names)} pages, each in {len(SCHEMES)} schemes, {len(found)} violations")
    return 1 if found or not names else 0


if __name__ == "__main__":
    sys.exit(main())
