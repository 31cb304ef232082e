"""The commands of an operator against a real sidecar: `breaker`, `status`, and a reload over the admin API."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from sidecar.__main__ import main
from tests.scenarios.operator import Operator
from tests.support.ports import free_ports
from tests.support.process import Running, http_get, sidecar

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of commands that run in this process; those of their own have the same (`Site.started`)."""
    for name, value in SURROUNDINGS.items():
        monkeypatch.setenv(name, value)


SURROUNDINGS = {"PATH": "/usr/bin:/bin", "http_proxy": "http://127.0.0.1:9", "COLUMNS": "120"}


def said(*words: str) -> tuple[int, str, str]:
    """Exit code, standard output and error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as ended:  # as argparse ends it
            code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


@dataclass
class Site:
    """A running sidecar, its file and its admin listener."""

    running: Running
    file: Path
    hand: Operator
    inbound: int

    async def command(self, *words: str) -> tuple[int, str, str]:
        """Run `sidecar WORDS` for this one: exit code, standard output and error."""
        return await self.bare_command(*words, "--admin", f"http://127.0.0.1:{self.hand.port}")

    async def bare_command(self, *words: str) -> tuple[int, str, str]:
        return await asyncio.to_thread(said, *words)

    async def started(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "sidecar", *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=SURROUNDINGS,
        )


def configured(*, inbound: int, admin: int, probes: int) -> str:
    return f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
admin: {{address: "127.0.0.1:{admin}"}}
probes: {{address: "127.0.0.1:{probes}"}}
drain: {{delay: 0s}}
upstreams: {{app: {{endpoints: ["127.0.0.1:9"]}}}}
routes:
- {{name: shop, upstream: app}}
- {{name: tapped, upstream: app, match: {{path: {{prefix: /tapped}}}}}}
"""


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    inbound, admin, probes = free_ports(3)
    file = folder / "sidecar.yaml"
    file.write_text(configured(inbound=inbound, admin=admin, probes=probes))
    async with sidecar(file, probes, folder / "log") as running:
        yield Site(running, file, Operator(admin), inbound)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """For tests that leave it as it was: no request by the route `shop`, and no order for its breaker."""
    async with site(tmp_path_factory.mktemp("shared")) as to:
        yield to


async def test_breaker_and_status_tell_and_exit_as_scripts_want(tmp_path: Path) -> None:
    async with site(tmp_path) as to:
        code, out, _ = await to.command("status")
        assert code == 0
        for word in ("ready", "shop", "app", "closed", "127.0.0.1:9"):
            assert word in out
        code, out, _ = await to.command("breaker", "open", "shop", "--for", "5m")
        assert code == 0
        held = rf"forced_open: by \S+@{re.escape(socket.gethostname())} since \S+Z until \S+Z"
        assert re.fullmatch(rf"shop/app: {held} \((300|29\d\.\d+) s left\)\n", out), out
        code, out, _ = await to.command("status", "--json")
        assert code == 1
        state = json.loads(out)
        assert set(state) == {"status", "routes", "breakers", "upstreams"}
        assert state["breakers"][0]["state"] == "forced_open"
        assert re.search(rf"^1 OPEN:\n  shop/app {held}$", (await to.command("status"))[1], re.MULTILINE)
        _, out, _ = await to.command("breaker", "close", "shop", "--for", "ever", "--by", "ada@bastion")
        assert re.fullmatch(
            r"shop/app: forced_closed: by ada@bastion since \S+ until ended by hand\n", out
        ), out
        _, out, _ = await to.command("status")
        assert re.search(r"^1 HELD BY HAND:\n  shop/app forced_closed: by ada@bastion ", out, re.MULTILINE)
        _, out, _ = await to.command("breaker", "open", "shop")
        assert re.search(r" \((1800|179\d\.\d+) s left\)", out)
        assert await to.command("breaker", "auto", "shop") == (0, "shop/app: closed, automatic\n", "")
        assert (await to.command("status"))[0] == 0
        log = await to.running.logged("circuit_breaker.transition", times=4)
        assert '"by":"ada@bastion"' in log
        assert '"reason":"forced"' in log


async def test_tap_shows_requests_as_they_end_and_ends_as_it_was_told(shared: Site) -> None:
    to = shared
    process = await to.started("tap", "tapped", "--count", "2", "--admin", f"http://127.0.0.1:{to.hand.port}")
    async with asyncio.timeout(60):
        while not (await to.hand.get("/status"))["taps"]["readers"]:  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.05)
    for path in ("/tapped/a?b=c", "/tapped/b"):
        await http_get(to.inbound, path)
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    first, second = out.decode().splitlines()
    when_and_what = r"\d\d:\d\d:\d\d\.\d{3}  502 +\d+\.\d ms  tapped  GET \S+/tapped/a  "
    line = when_and_what + r"budget \d+ ms \(route\)  reason \S+  → 127.0.0.1:9"
    assert re.fullmatch(line, first), first
    assert second.isprintable()
    for words, told in (
        (("shp",), "did you mean 'shop'?"),
        (("--slow", "9"), "slow: "),
        (("-n", "0"), "at least 1"),
    ):
        code, _, err_text = await to.command("tap", *words)
        assert (code, told in err_text) == (2, True), err_text


async def test_tap_of_nobody_says_so(tmp_path: Path) -> None:
    async with site(tmp_path) as to:
        (nobody,) = free_ports(1)
        code, _, err = await Site(to.running, to.file, Operator(nobody), 0).command("tap")
        assert (code, "no sidecar listens there" in err) == (1, True), err
        process = await to.started("tap", "--admin", f"http://127.0.0.1:{to.hand.port}")
        async with asyncio.timeout(60):
            while not (await to.hand.get("/status"))["taps"]["readers"]:  # noqa: ASYNC110  # another process sets no event
                await asyncio.sleep(0.05)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (1, b"sidecar: it has ended\n")


async def test_explain_tells_in_words_what_a_running_sidecar_knows(shared: Site) -> None:
    to = shared
    await to.hand.post("/breakers/shop/open?for=5m")
    code, out, _ = await to.command("explain", str(to.file), "/x")
    await to.hand.post("/breakers/shop/auto")
    assert code == 0
    assert re.search(
        r"""\nLive
  breaker shop/app: forced_open by hand
    forced_open: by 127\.0\.0\.1 since \S+Z until \S+Z
    window: 0 calls, 0\.0% failed, 0\.0% slow, 0 failures in a row; refused since the start: 0
    last change: closed → forced_open \(forced\) at \d{4}-\S+: by 127\.0\.0\.1 for 5m\n$""",
        out,
    ), out
    (nobody,) = free_ports(1)
    code, out, _ = await Site(to.running, to.file, Operator(nobody), 0).command("explain", str(to.file), "/x")
    assert code == 0
    assert out.endswith(
        f"\nLive\n  http://127.0.0.1:{nobody}: no sidecar listens there (Connection refused); "
        "is the address right?\n"
    )


async def test_a_command_that_cannot_be_done_says_why(shared: Site) -> None:
    to = shared
    code, _, err = await to.command("breaker", "open", "shops")
    assert (code, err) == (2, "sidecar: there is no route 'shops'; did you mean 'shop'?\n")
    code, _, err = await to.command("breaker", "open", "shop", "--for", "5")
    assert (code, err) == (2, "sidecar: for: a duration needs a unit: write 5s or 5ms\n")
    assert (await to.command("breaker", "ajar", "shop"))[0] == 2
    (nobody,) = free_ports(1)
    for words in (("status",), ("breaker", "auto", "shop")):
        code, _, err = await Site(to.running, to.file, Operator(nobody), 0).command(*words)
        where = f"http://127.0.0.1:{nobody}"
        told = f"sidecar: {where}: no sidecar listens there (Connection refused); is the address right?\n"
        assert (code, err) == (1, told)
    for wrong in (
        *(
            "--admin=ftp://x",
            "--admin=127.0.0.1:1",
            "--admin=http://127.0.0.1:x",
            "--admin=http://x:99999",
        ),
        *(f"--token-file={to.file.parent}/none", "--wach"),
    ):
        code, out, err = await to.bare_command("status", f"--admin=http://127.0.0.1:{to.hand.port}", wrong)
        assert (code, out) == (2, ""), wrong
        assert err


async def test_a_watch_goes_on_while_nobody_answers_and_says_at_its_end_what_it_saw_last(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as to:
        process = await to.started("status", "--watch", "--json", f"--admin=http://127.0.0.1:{to.hand.port}")
        assert process.stdout is not None
        for path, state in (("", "closed"), ("/breakers/shop/open", "forced_open")):
            if path:
                await to.hand.post(path)
            seen = ""
            while seen != state:
                seen = json.loads(await process.stdout.readline())["breakers"][0]["state"]
        await to.hand.post("/breakers/shop/auto")
        while seen != "closed":
            seen = json.loads(await process.stdout.readline())["breakers"][0]["state"]
        await to.hand.post("/quitquitquit")
        await to.running.ended()
        for _ in range(30):  # it repeats what it knows, the last of it from before the end
            if (await process.stdout.readline()) == (await process.stdout.readline()):
                break
        process.send_signal(signal.SIGINT)
        await process.communicate()
        assert process.returncode == 1


async def test_a_watch_without_a_terminal_tells_every_state(shared: Site) -> None:
    """As into a pipe, where nothing can be drawn over; there each line is whole."""
    to = shared
    process = await to.started("status", "--watch", f"--admin=http://127.0.0.1:{to.hand.port}")
    assert process.stdout is not None
    for _ in range(2):
        seen = ""
        while "Breakers" not in seen:
            seen = (await process.stdout.readline()).decode()
            assert "\x1b" not in seen
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")


async def test_a_reload_is_answered_told_and_shown(tmp_path: Path) -> None:
    async with site(tmp_path) as to, to.hand.events() as events:
        good = to.file.read_text()
        to.file.write_text(good.replace("upstream: app}", "upstream: app, timeouts: {request: 3s}}"))
        told = await to.hand.post("/reload")
        assert told["is_success"] is True
        kind, heard = await events.next()
        assert (kind, heard["generation"], heard["routes"]) == (
            "reload", 2, {"added": 0, "removed": 0, "changed": 1},
        )  # fmt: skip
        to.file.write_text(good + "oops: 1\n")
        refused = await to.hand.post("/reload")
        assert (to.hand.status, refused["status"], refused["is_success"]) == (422, 422, False)
        assert "oops" in refused["problems"][0]
        heard = {"is_success": True}
        while heard["is_success"]:
            _, heard = await events.next()
        assert heard["generation"] == 2
        config = await to.hand.get("/config")
        assert (config["generation"], config["is_last_reload_successful"]) == (2, False)
        assert config["problems"] == refused["problems"]
        assert config["last_reload"]["is_success"] is False
        assert (await to.command("status"))[0] == 1
        assert (await to.running.get("/readyz"))[0] == 200


async def test_a_reload_to_an_address_that_is_taken_says_which_key_and_what_to_do(shared: Site) -> None:
    to, good = shared, shared.file.read_text()
    taken = to.hand.port
    more = f'listeners: {{more: {{address: "127.0.0.1:{taken}", direction: inbound}}, '
    # without `admin`, or the file would be refused before anything is bound
    to.file.write_text(good.replace("listeners: {", more).replace("admin: {", "admin: #{"))
    refused = await to.hand.post("/reload")
    assert (to.hand.status, refused["problems"]) == (
        422,
        [
            f"{to.file}: listeners.more.address: cannot listen on 127.0.0.1:{taken}: it is in use: stop what "
            f"listens there (`ss -ltnp 'sport = :{taken}'` shows it), or choose another port"
        ],
    )
    to.file.write_text(good)
    assert (await to.hand.post("/reload"))["is_success"]


async def test_an_override_survives_a_reload_of_the_file(shared: Site) -> None:
    to, good = shared, shared.file.read_text()
    await to.command("breaker", "open", "shop", "--for", "5m")
    to.file.write_text(good.replace("upstream: app}", "upstream: app, circuit_breaker: {ramp: 5s}}"))
    told = await to.hand.post("/reload")
    assert told["is_success"]
    assert told["routes"]["changed"]
    (one,) = (await to.hand.get("/breakers/shop"))["breakers"]
    assert (one["state"], one["is_overridden"]) == ("forced_open", True)
    to.file.write_text(good)
    await to.hand.post("/reload")
    await to.command("breaker", "auto", "shop")


async def test_quitquitquit_ends_the_process_in_order_and_whoever_listens_with_it(tmp_path: Path) -> None:
    async with site(tmp_path) as to, to.hand.events():
        await to.hand.post("/quitquitquit")
        assert to.hand.status == 202
        assert await to.running.ended() == 0
