"""A tour of ten steps in the terminal: what a sidecar does, and the commands that one looks and acts with.

Each step does what it tells, on the same stage as the story, and claims what it has measured. The commands are run as
a person would run them, and what they print is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable
from typing import Final

from sidecar.core.program import command
from sidecar.demo.scenes import Scene, play_all
from sidecar.demo.stage import ROUTE, Stage
from sidecar.demo.story import REFUSED, dead, deadline, healthy, leaving

SHOWN_LINES: Final = 24
"""Of what a command prints."""
BY: Final = "tour"


async def play(stage: Stage, pause_seconds: float, tell: Callable[[str], None]) -> None:
    """All steps. Where somebody sits at a terminal, each waits for Enter; else for the pause. `tell`: prints."""

    async def rest() -> None:
        if not sys.stdin.isatty():
            await asyncio.sleep(pause_seconds)
            return
        tell("   Enter goes on, Ctrl-C ends it.")
        await _line()

    await play_all(STEPS, stage, stage.journal, rest)


async def _line() -> None:
    """A line on stdin. Not by a thread: nobody could end it."""
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), heard.set)
    try:
        await heard.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    sys.stdin.readline()


async def _command(stage: Stage, *words: str) -> tuple[int, str]:
    """Run `sidecar WORDS` and show it: exit code and output."""
    stage.journal.note(f"$ sidecar {shlex.join(words)}")
    process = await asyncio.create_subprocess_exec(
        *command("sidecar", *words), stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    text = out.decode(errors="replace")
    lines = [line.rstrip() for line in text.splitlines()]
    for line in lines[:SHOWN_LINES]:
        stage.journal.note(f"  {line}")
    if len(lines) > SHOWN_LINES:
        stage.journal.note(f"  … and {len(lines) - SHOWN_LINES} lines more")
    return process.returncode or 0, text


def _admin(stage: Stage) -> tuple[str, str]:
    """Of the sidecar whose breaker the story is about."""
    return "--admin", stage.sidecars[1].admin


async def looked_at(stage: Stage) -> None:
    code, text = await _command(stage, "status", *_admin(stage))
    stage.journal.claim(f"exit code {code}: all is well, for scripts too", code == 0 and ROUTE in text)


async def tapped(stage: Stage) -> None:
    async def calls() -> None:
        while True:
            await stage.get("/fast", at=1)

    caller = asyncio.create_task(calls())
    try:
        _, text = await _command(stage, "tap", ROUTE, "--count", "2", *_admin(stage))
    finally:
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
    seen = text.count(ROUTE)
    stage.journal.claim(
        f"{seen} requests as they ended, each with its time and what stood behind it", seen == 2
    )


async def explained(stage: Stage) -> None:
    file = str(stage.sidecars[1].file)
    code, text = await _command(
        stage,
        "explain",
        file,
        "--listener",
        "outbound",
        "-H",
        "x-request-timeout-ms: 800",
        "http://payments/fast",
    )
    takes = f"→ route {ROUTE}" in text
    stage.journal.claim("which route takes a request, and where each limit is from", code == 0 and takes)


async def overridden(stage: Stage) -> None:
    await _command(stage, "breaker", "open", ROUTE, "--for", "1m", "--by", BY, *_admin(stage))
    (asked,) = await stage.orders_asks(1)
    stage.journal.claim(f"held open by hand: {asked.status}, {asked.reason}", asked.reason == REFUSED)
    await _command(stage, "breaker", "auto", ROUTE, "--by", BY, *_admin(stage))
    (again,) = await stage.orders_asks(1)
    stage.journal.claim(f"the override has ended: {again.status}", again.status == 200)


async def compared(stage: Stage) -> None:
    file = stage.sidecars[1].file
    new = file.with_name("new.yaml")
    new.write_text(file.read_text().replace("consecutive_failures: 5", "consecutive_failures: 3"))
    code, text = await _command(stage, "diff", str(file), str(new))
    new.unlink()
    stage.journal.claim(
        "a reload is told beforehand, and the breaker keeps its state", code == 0 and "kept" in text
    )


async def goes_on(stage: Stage) -> None:
    for sidecar in stage.sidecars:
        stage.journal.note(f"{sidecar.name}: {sidecar.admin}/")
    stage.journal.note(
        "sidecar demo --serve keeps all of this running; sidecar init writes a configuration for you"
    )
    answers = []
    for sidecar in stage.sidecars:
        async with stage.session.get(f"{sidecar.admin}/") as page:
            answers.append(page.status)
    stage.journal.claim(f"{len(answers)} dashboards answer", answers == [200] * len(stage.sidecars))


STEPS: Final = (
    Scene(
        "One call through three services",
        "Each hop is given what is left of its time.",
        healthy,
    ),
    Scene(
        "Look at it", "`sidecar status` has routes, breakers and upstreams of a running sidecar.", looked_at
    ),
    Scene(
        "See requests as they end",
        "`sidecar tap` shows each, with its budget and its reason.",
        tapped,
    ),
    Scene(
        "Ask why", "`sidecar explain` says which route takes a request, and each limit that holds.", explained
    ),
    Scene(
        "Time runs out",
        "A call with less time than it needs is answered in time, and the work ends.",
        deadline,
    ),
    Scene("A client leaves", "The whole tree of calls below it is cancelled.", leaving),
    Scene("payments dies", "Five failures open the breaker; it refuses, sends one probe, and closes.", dead),
    Scene(
        "Take it into your own hands", "`sidecar breaker` holds it open or closed, with an end.", overridden
    ),
    Scene("Before a change", "`sidecar diff` says what a reload would change.", compared),
    Scene("Where to go on", "Each sidecar has a dashboard.", goes_on),
)
