"""The app of the tests' pods: `app.py serve`, or `app.py report URL`, which asks through $http_proxy and ends;
`app.py report_and_quit URL` ends its sidecar then, as the Job of `deploy/legacy` does.
"""

from __future__ import annotations

import os
import sys
import urllib.request


def serve() -> None:
    """Until SIGTERM, then let requests in flight finish."""
    from aiohttp import web

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["APP_PORT"]), print=None, access_log=None)


def report(url: str) -> int:
    """Exit 0 when the answer was good."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return 0 if answer.status == 200 else 1


def report_and_quit(url: str) -> int:
    """As `report`, and however that ends the sidecar ends too."""
    try:
        return report(url)
    finally:
        quitting = urllib.request.Request(os.environ["QUIT_URL"], method="POST")
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(quitting, timeout=60)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        sys.exit({"report": report, "report_and_quit": report_and_quit}[sys.argv[1]](sys.argv[2]))
