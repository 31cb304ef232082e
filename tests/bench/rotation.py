"""`python -m tests.bench.rotation`: certificates that change again and again, under load.

A sidecar with TLS has its files replaced as the kubelet replaces those of a Secret, every tenth time by a pair that
cannot be used, while kept connections send requests at a fixed rate and now and then connect anew. Counted are
requests and handshakes that failed, which there must be none of, and the time until a new connection is shown the new
certificate.

Exit codes: 0 nothing failed and each certificate was shown in time, 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import ssl
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.process.setting import Served, served
from tests.support.authority import Authority, Pair
from tests.support.raw import RawPeer, raw_upstream
from tests.support.tls_client import tls_client

BAD_EACH = 10
SHOWN_SECONDS = 1.0
"""In which a new connection has to be shown a new certificate."""
GIVE_UP_SECONDS = 20.0
REFUSED_SECONDS = 1.5
"""After which a pair that cannot be used would be in use, if it were taken."""
REQUESTS_A_CONNECTION = 500
GET = b"GET /api/small HTTP/1.1\r\nHost: a.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Plan:
    rotations: int = 200
    connections: int = 50
    rate_per_second: float = 1000.0


@dataclass
class Outcome:
    """What came of it."""

    seconds: float = 0.0
    requests: int = 0
    handshakes: int = 0
    failures: list[str] = field(default_factory=list)
    shown_seconds: list[float] = field(default_factory=list)
    """From the replacing of the files to the first connection that was shown the new certificate."""
    refused: int = 0
    """Pairs that the sidecar says it has not used."""

    @property
    def is_good(self) -> bool:
        return not self.failures and max(self.shown_seconds, default=0.0) <= SHOWN_SECONDS

    def told(self) -> dict[str, object]:
        ordered = sorted(self.shown_seconds)
        return {
            "requests": self.requests,
            "requests_a_second": round(self.requests / self.seconds),
            "handshakes": self.handshakes,
            "failed": len(self.failures),
            "rotations_shown": len(ordered),
            "shown_seconds_median": round(ordered[len(ordered) // 2], 3) if ordered else None,
            "shown_late": sum(seconds > SHOWN_SECONDS for seconds in ordered),
            "shown_seconds_most": round(ordered[-1], 3) if ordered else None,
            "refused": self.refused,
            "first_failures": self.failures[:5],
        }


class Mount:
    """Files as the kubelet mounts a Secret: links into a directory that is replaced as a whole."""

    def __init__(self, folder: Path, pair: Pair) -> None:
        self._folder = folder
        self._number = 0
        self.write(pair)
        for name in ("tls.crt", "tls.key"):
            os.symlink(f"..data/{name}", folder / name)

    def write(self, pair: Pair, key: Pair | None = None) -> None:
        self._number += 1
        data = self._folder / f"..{self._number}"
        data.mkdir()
        shutil.copy(pair.chain, data / "tls.crt")
        shutil.copy((key or pair).key, data / "tls.key")
        os.symlink(data.name, self._folder / "..new")
        os.rename(self._folder / "..new", self._folder / "..data")


async def answer_all(peer: RawPeer) -> None:
    while await peer.request() is not None:
        await peer.send(OK)


class Load:
    """Requests at a fixed rate on connections that are kept for a while."""

    def __init__(self, plan: Plan, port: int, context: ssl.SSLContext, outcome: Outcome) -> None:
        self._plan = plan
        self._port = port
        self._context = context
        self._outcome = outcome
        self.is_over = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._plan.connections):
                group.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        interval = self._plan.connections / self._plan.rate_per_second
        next_at = time.monotonic() + interval * number / self._plan.connections
        while not self.is_over:
            try:
                async with tls_client(self._port, self._context) as client:
                    self._outcome.handshakes += 1
                    for _ in range(REQUESTS_A_CONNECTION + number):
                        await asyncio.sleep(max(0.0, next_at - time.monotonic()))
                        next_at += interval
                        if self.is_over:
                            return
                        status = (await client.ask(GET)).status
                        self._outcome.requests += 1
                        if status != 200:
                            self._outcome.failures.append(f"status {status}")
            except Exception as error:
                self._outcome.failures.append(repr(error))
                await asyncio.sleep(0.1)


class Rotations:
    """Replaces the files, and looks at what new connections are shown."""

    def __init__(self, plan: Plan, mount: Mount, authority: Authority, to: Served, outcome: Outcome) -> None:
        self._plan = plan
        self._mount = mount
        self._authority = authority
        self._to = to
        self._outcome = outcome

    async def run(self) -> None:
        last = ""
        for number in range(1, self._plan.rotations + 1):
            pair = self._authority.pair("a.test", file=f"pair-{number}")
            if number % BAD_EACH == 0:
                self._mount.write(pair, key=self._authority.pair("a.test", file=f"other-{number}"))
                await asyncio.sleep(REFUSED_SECONDS)
                shown = await self._shown()
                if shown != last:
                    self._outcome.failures.append(
                        f"rotation {number}: {shown} is shown in the place of {last}"
                    )
                continue
            last = f"{pair.certificate.serial_number:X}".lstrip("0")
            self._mount.write(pair)
            await self._await(last, number)

    async def _await(self, serial: str, number: int) -> None:
        began = time.monotonic()
        while await self._shown() != serial:
            if time.monotonic() - began > GIVE_UP_SECONDS:
                self._outcome.failures.append(f"rotation {number} is not shown")
                return
            await asyncio.sleep(0.02)
        self._outcome.shown_seconds.append(time.monotonic() - began)

    async def _shown(self) -> str:
        """The serial number of the certificate that a new connection gets; its request is answered."""
        try:
            async with tls_client(self._to.port, self._authority.trust) as client:
                self._outcome.handshakes += 1
                status = (await client.ask(GET)).status
                self._outcome.requests += 1
                if status != 200:
                    self._outcome.failures.append(f"a new connection: status {status}")
                shown = client.tls.getpeercert() or {}
                return str(shown["serialNumber"]).lstrip("0")
        except (OSError, ssl.SSLError) as error:
            self._outcome.failures.append(f"a new connection: {error!r}")
            return ""


async def rotate(plan: Plan, folder: Path) -> Outcome:
    """Carry it out; files go to `folder`."""
    outcome = Outcome()
    authority = Authority(folder)
    mounted = folder / "mount"
    mounted.mkdir()
    mount = Mount(mounted, authority.pair("a.test", file="first"))
    tls = f'tls: {{certificate: {{chain: "{mounted}/tls.crt", key: "{mounted}/tls.key"}}}}'
    async with raw_upstream(answer_all) as app, served(folder, app.port, listener=tls) as to:
        load = Load(plan, to.port, authority.client(), outcome)
        running = asyncio.create_task(load.run())
        began = time.monotonic()
        try:
            await Rotations(plan, mount, authority, to, outcome).run()
        finally:
            load.is_over = True
            outcome.seconds = time.monotonic() - began
            await running
        labels = 'sidecar_tls_owner="listener/inbound",sidecar_tls_result="failure"'
        outcome.refused = int(await to.metric(f"sidecar_tls_certificate_changes_total{{{labels}}}"))
    return outcome


def main() -> int:
    """Run as told; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.rotation", description=(__doc__ or "").split("\n")[0]
    )
    usual = Plan()
    parser.add_argument("--rotations", type=int, default=usual.rotations)
    parser.add_argument("--connections", type=int, default=usual.connections)
    parser.add_argument("--rate", type=float, default=usual.rate_per_second, help="requests a second, in all")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    plan = Plan(options.rotations, options.connections, options.rate)
    with tempfile.TemporaryDirectory(prefix="sidecar-rotation-") as folder:
        outcome = asyncio.run(rotate(plan, Path(folder)))
    told = {**asdict(plan), **outcome.told()}
    print(json.dumps(told, indent=1))
    if options.json:
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
