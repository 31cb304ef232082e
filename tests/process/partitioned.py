"""Two replicas and a Redis in a network namespace (`unshare --net`), where iptables drops all packets between the
Redis and one of them, then both: what becomes of requests, and what is said. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from sidecar.core.transition import State
from tests.process.fleet import (
    LONG,
    Flaky,
    Replica,
    are_one,
    configuration,
    fails,
    replicas,
    under_load,
    until,
)
from tests.support.redis_server import redis_server

ADDRESSES = ("127.0.0.1", "127.0.0.2")
"""Under which each replica knows the Redis."""


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def drop(how: str, address: str, port: int) -> None:
    """From the Redis at this address: what goes there gets no answer. `how`: -A, or -D to let it through again."""
    run("iptables", how, "INPUT", "-p", "tcp", "-s", address, "--sport", str(port), "-j", "DROP")
    run("iptables", how, "INPUT", "-p", "tcp", "-d", address, "--dport", str(port), "-j", "DROP")


def alone(fleet: list[Replica]) -> list[str | None]:
    """Of each replica: why it is."""
    return [one.told["reason"] if one.told["is_alone"] else None for one in fleet]


async def told(folder: Path) -> dict[str, object]:
    both = ADDRESSES[0], ADDRESSES[1]
    async with redis_server(folder, "--bind", *both) as server, Flaky().serving() as app:
        texts = [
            configuration(app.port, server.port, LONG).replace("redis://127.0.0.1", f"redis://{address}")
            for address in ADDRESSES
        ]
        found: dict[str, object] = {}
        async with replicas(2, texts) as fleet:
            await until(lambda: are_one(fleet))
            async with under_load(fleet) as answers:
                drop("-A", ADDRESSES[1], server.port)
                await until(lambda: fleet[1].told["is_alone"])
                found["one"] = alone(fleet)
                drop("-A", ADDRESSES[0], server.port)
                await until(lambda: fleet[0].told["is_alone"])
                found["both"] = alone(fleet)
            found["answers"] = sorted(set(answers))
            await fails(fleet[0], app)
            found["opened"] = [one.state.value for one in fleet]
            app.status = 200
            for address in ADDRESSES:
                drop("-D", address, server.port)
            await until(lambda: are_one(fleet))
            await fleet[0].ask("POST", "/breakers/pay/open?fleet=true")
            await until(lambda: fleet[1].state is State.FORCED_OPEN)
            found["merged"] = alone(fleet)
        return found


def main() -> None:
    run("ip", "link", "set", "lo", "up")
    print(json.dumps(asyncio.run(told(Path(sys.argv[1])))))


if __name__ == "__main__":
    main()
