"""A gRPC server behind a sidecar, whose connection loses every packet: what becomes of the calls?

Run in a network namespace of its own (`unshare --net`), since the packets are dropped by iptables. Prints one line of
JSON: how each call ended, and when, in seconds since the packets were dropped.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc

from tests.process.setting import served
from tests.support.grpc_service import NAME, grpc_service

CALL_SECONDS = 0.5
"""Of each call that finds no answer; one that does has all the time that a busy machine takes."""
PATIENCE_SECONDS = 60.0
WATCHED_SECONDS = 20.0
GOOD_CALLS = 20
"""After so many that were answered, no more are watched."""
ROUTE = "circuit_breaker: {mode: disabled}"


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def own_ports(of_port: int) -> list[int]:
    """The near ends of connections to a port of this namespace."""
    rows = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = [row for row in rows if row[2] == "01" and int(row[1].split(":")[1], 16) == of_port]
    return [int(row[0].split(":")[1], 16) for row in established]


def drop(near: int, far: int) -> None:
    """All packets of one connection, both ways."""
    for source, target in ((near, far), (far, near)):
        run(
            "iptables",
            "-A",
            "INPUT",
            "-p",
            "tcp",
            "--sport",
            str(source),
            "--dport",
            str(target),
            "-j",
            "DROP",
        )


def calls(port: int, service_port: int) -> list[tuple[float, str]]:
    told: list[tuple[float, str]] = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        echo = channel.unary_unary(f"/{NAME}/Echo")
        echo(b"first", timeout=PATIENCE_SECONDS)
        ports = own_ports(service_port)
        assert ports, "no connection to the server"
        for near in ports:
            drop(near, service_port)
        begin = time.monotonic()
        good = 0
        while (since := time.monotonic() - begin) < WATCHED_SECONDS and good < GOOD_CALLS:
            try:
                echo(b"x", timeout=PATIENCE_SECONDS if good else CALL_SECONDS)
                told.append((since, "OK"))
                good += 1
            except grpc.RpcError as error:
                said: Any = error
                told.append((since, said.code().name))
            time.sleep(0.02)
    return told


async def main() -> None:
    run("ip", "link", "set", "lo", "up")
    with grpc_service() as service:
        async with served(
            Path(sys.argv[1]), service.port, upstream="protocol: http2", route=ROUTE
        ) as sidecar:
            print(json.dumps(await asyncio.to_thread(calls, sidecar.port, service.port)))


if __name__ == "__main__":
    asyncio.run(main())
