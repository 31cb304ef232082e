"""From an alert to its cause in three commands: python -m tests.bench.incidents [NAME ...].

Provokes incidents on real processes, gives the commands that deploy/INCIDENTS.md names, and prints what a person
would read. NAME: only those with this text in their row's name. Exit code 1 if the commands of one did not show its
cause.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.incidents.cases import INCIDENTS, Incident
from tests.bench.incidents.place import place
from tests.bench.program import run, unwind_on_sigterm

PATIENCE_SECONDS = 3.0
"""Log lines take a moment to be written: less than a person does to ask for them."""


async def led(incident: Incident) -> tuple[list[tuple[str, str]], list[str]]:
    """Provoke it: each command with what it printed, and what of the cause none has shown."""
    with tempfile.TemporaryDirectory(prefix="sidecar-incident-") as folder:
        async with place(Path(folder), incident.listener, incident.rest) as here:
            words = {**here.ports, "folder": folder}
            await incident.provoke(here)
            commands = [step.format(**words) for step in incident.steps]
            cause = [text.format(**words) for text in incident.cause]
            given_up = time.monotonic() + PATIENCE_SECONDS
            while True:
                told = [(command, await here.shell(command)) for command in commands]
                shown = "\n".join(output for _, output in told)
                missing = [text for text in cause if text not in shown]
                if not missing or time.monotonic() > given_up:
                    return told, missing


async def transcript(incidents: Sequence[Incident]) -> bool:
    """Print each; whether all led to their causes."""
    is_good = True
    for incident in incidents:
        told, missing = await led(incident)
        print(f"## {incident.row}: {incident.wrong}\n")
        for command, output in told:
            print(f"$ {command}\n{output}\n")
        print(f"NOT SHOWN: {missing}\n" if missing else "The cause is there.\n", flush=True)
        is_good = is_good and not missing
    return is_good


def main() -> int:
    """One after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    unwind_on_sigterm()
    chosen = [one for one in INCIDENTS if not options.names or any(n in one.row for n in options.names)]
    return int(not asyncio.run(transcript(chosen)))


if __name__ == "__main__":
    run(main)
