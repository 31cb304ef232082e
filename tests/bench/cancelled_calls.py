"""gRPC calls that are cancelled all the time, through two sidecars in a row on one connection: is that a flood?

    python -m tests.bench.cancelled_calls [--rate 300] [--seconds 60]

A client of grpcio begins so many calls a second to a server that never answers, and cancels each after a while. Told
are the calls that were cancelled, those that ended otherwise, what each sidecar counted, and whether a call gets an
answer at the end. Exit code 1 where one ended otherwise: a flood would end its connection, and every call on it.
Breakers are off, since calls without an end teach nothing; a sidecar that is overloaded may refuse some
(REFUSED_STREAM, error code 7), which is told and is no flood.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import grpc.aio

from tests.process.setting import served
from tests.support.grpc_service import NAME, grpc_service

LIVES_SECONDS = 0.05


async def cancel_all_the_time(port: int, rate: int, seconds: float) -> tuple[Counter[str], bytes]:
    """How the calls ended, and the answer to the last one."""
    ends: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        slow, echo = channel.unary_unary(f"/{NAME}/Slow"), channel.unary_unary(f"/{NAME}/Echo")
        await echo(b"first")

        async def one() -> None:
            call = slow(b"", timeout=30)
            await asyncio.sleep(LIVES_SECONDS)
            call.cancel()
            try:
                await call
            except asyncio.CancelledError:
                ends["cancelled"] += 1
            except grpc.aio.AioRpcError as error:
                ends[f"{error.code().name}: {error.details()}"] += 1

        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
                group.create_task(one())
        took = time.monotonic() - begin
        print(f"{sum(ends.values()) / took:.0f} calls a second for {took:.1f} s: {dict(ends)}")
        return ends, await echo(b"last", timeout=30)


def is_expected(end: str) -> bool:
    return end == "cancelled" or "REFUSED_STREAM" in end or "error code 7" in end


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with grpc_service() as service, tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        folders = [Path(name, "second"), Path(name, "first")]
        for folder in folders:
            folder.mkdir()
        way = {"upstream": "protocol: http2", "route": "circuit_breaker: {mode: disabled}"}
        async with (
            served(folders[0], service.port, **way) as second,
            served(folders[1], second.port, **way) as first,
        ):
            ends, last = await cancel_all_the_time(first.port, options.rate, options.seconds)
            for title, sidecar in (("first", first), ("second", second)):
                gone = await sidecar.metric(
                    'http_server_request_duration_seconds_count{sidecar_route="app",sidecar_listener="inbound",'
                    'http_request_method="POST",url_scheme="http",http_response_status_code="499"'
                )
                print(f"the {title} sidecar: {gone:.0f} calls whose client left")
    if last != b"last" or any(not is_expected(end) for end in ends):
        sys.exit(1)


if __name__ == "__main__":
    asyncio.run(main())
