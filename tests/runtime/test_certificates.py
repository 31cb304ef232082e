"""Certificates that change while they are in use: only good ones are used, and bad ones are told."""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from sidecar.core.tls_numbers import Handshake
from sidecar.runtime.certificates import HANDSHAKES_TOLD_SECONDS, HandshakesTold, Rotation, rotating
from sidecar.runtime.worker import Worker
from sidecar.telemetry.log_lines import Level
from tests.scenarios.stage import app_routes, saying
from tests.support.authority import Authority, Pair
from tests.support.proxy import HEADER, port, running
from tests.support.raw import raw_upstream
from tests.support.tls_client import tls_client

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Told:
    """What went to the log."""

    lines: list[tuple[Level, str, str]] = field(default_factory=list)

    def __call__(self, level: Level, kind: str, message: str, fields: Mapping[str, object]) -> None:
        self.lines.append((level, kind, message))

    def take(self) -> list[str]:
        kinds = [kind for _, kind, _ in self.lines]
        self.lines.clear()
        return kinds


class Mount:
    """A Secret as the kubelet mounts it: files are symlinks into `..data`, and that is swapped as a whole."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder
        self.authority = authority
        self._number = 0
        self.write(authority.pair("a.test"))
        for name in ("tls.crt", "tls.key", "ca.crt"):
            os.symlink(f"..data/{name}", folder / name)

    def write(self, pair: Pair, key: Pair | None = None, ca: Authority | None = None) -> None:
        self._number += 1
        data = self.folder / f"..{self._number}"
        data.mkdir()
        shutil.copy(pair.chain, data / "tls.crt")
        shutil.copy((key or pair).key, data / "tls.key")
        shutil.copy((ca or self.authority).path, data / "ca.crt")
        os.symlink(data.name, self.folder / "..new")
        os.rename(self.folder / "..new", self.folder / "..data")

    def yaml(self, more: str = "") -> str:
        files = f'certificate: {{chain: "{self.folder}/tls.crt", key: "{self.folder}/tls.key"}}'
        tls = f'tls: {{{files}, client: request, client_ca: "{self.folder}/ca.crt"{more}}}'
        return HEADER.replace(
            'inbound: {address: "127.0.0.1:0"}', f'inbound: {{address: "127.0.0.1:0", {tls}}}'
        )


@dataclass
class Rig:
    """A sidecar whose part that looks after certificates is moved by hand, by a clock of its own."""

    worker: Worker
    mount: Mount
    authority: Authority
    told: Told = field(default_factory=Told)
    now: float = 100.0

    def __post_init__(self) -> None:
        self.rotation = Rotation(lambda: rotating(self.worker.datapath), lambda: self.now, self.told)

    async def look(self, *, after: float = 0.25) -> bool:
        self.now += after
        return await self.rotation.look()

    async def settle(self) -> None:
        """Until there is nothing more to try."""
        for _ in range(20):
            if not await self.look(after=0.25):
                return
        raise AssertionError("it never settled")

    async def serial(self, session: ssl.SSLSession | None = None) -> str:
        """Of the certificate that a new connection is shown; its request is answered."""
        async with tls_client(port(self.worker), self.authority.trust, session=session) as client:
            assert (await client.ask()).status == 200
            assert session is None or not client.tls.session_reused
            shown = client.tls.getpeercert()
            assert shown is not None
            return str(shown["serialNumber"])

    @property
    def problem(self) -> object:
        (owner,) = self.rotation.told()
        return owner["problem"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest_asyncio.fixture
async def rig(tmp_path: Path, authority: Authority) -> AsyncIterator[Rig]:
    folder = tmp_path / "mount"
    folder.mkdir()
    mount = Mount(folder, authority)
    async with raw_upstream(saying(OK)) as app, running(app_routes(app.port), mount.yaml()) as worker:
        await worker.control.parts.end("certificates")
        yield Rig(worker, mount, authority)


def serial(pair: Pair) -> str:
    return f"{pair.certificate.serial_number:X}"


def same(one: str, other: str) -> bool:
    return one.lstrip("0") == other.lstrip("0")


async def test_swap_of_a_secret_is_used_for_new_connections_and_old_ones_go_on(rig: Rig) -> None:
    async with tls_client(port(rig.worker), rig.authority.trust) as old:
        assert (await old.ask()).status == 200
        session = old.tls.session
        renewed = rig.authority.pair("a.test")
        rig.mount.write(renewed)
        await rig.look()
        await rig.look(after=0.15)
        assert same(await rig.serial(session), serial(renewed))
        assert (await old.ask()).status == 200
    assert rig.told.take() == ["tls.renewed"]
    assert rig.rotation.changes == {("listener/inbound", "success"): 1}


async def test_nothing_is_loaded_again_while_nothing_changes(rig: Rig) -> None:
    served = rig.worker.listeners["inbound"].served
    for _ in range(8):
        assert not await rig.look(after=1.0)
    assert rig.worker.listeners["inbound"].served is served
    assert rig.told.take() == []


async def test_change_between_load_and_first_look_is_seen(rig: Rig) -> None:
    renewed = rig.authority.pair("a.test")
    rig.mount.write(renewed)
    await rig.settle()
    assert same(await rig.serial(), serial(renewed))


@pytest.mark.parametrize("fault", ["foreign key", "expired", "future", "no certificate", "missing", "no ca"])
async def test_bad_pair_changes_nothing_and_is_told_once(rig: Rig, fault: str) -> None:
    before = await rig.serial()
    good = rig.authority.pair("a.test")
    match fault:
        case "foreign key":
            rig.mount.write(good, key=rig.authority.pair("a.test"))
        case "expired":
            rig.mount.write(rig.authority.pair("a.test", days=-0.5))
        case "future":
            rig.mount.write(rig.authority.pair("a.test", begins_in_days=1))
        case "no certificate":
            (rig.mount.folder / "..data" / "tls.crt").write_text("nothing")
        case "missing":
            (rig.mount.folder / "..data" / "tls.key").unlink()
        case "no ca":
            (rig.mount.folder / "..data" / "ca.crt").write_text("nothing")
    await rig.settle()
    await rig.settle()
    assert rig.told.take() == ["tls.refused"]
    assert rig.rotation.changes == {("listener/inbound", "failure"): 1}
    assert str(rig.mount.folder) in str(rig.problem)
    assert await rig.serial() == before
    rig.mount.write(good)
    await rig.settle()
    assert rig.told.take() == ["tls.renewed"]
    assert rig.problem is None
    assert same(await rig.serial(), serial(good))


async def test_pair_that_is_written_in_two_steps_is_no_mistake(rig: Rig) -> None:
    renewed = rig.authority.pair("a.test")
    data = rig.mount.folder / "..data"
    shutil.copy(renewed.chain, data / "tls.crt")
    await rig.look()
    assert await rig.look(after=0.15)
    assert rig.told.take() == []
    shutil.copy(renewed.key, data / "tls.key")
    await rig.look(after=0.5)
    await rig.look(after=0.15)
    assert rig.told.take() == ["tls.renewed"]
    assert same(await rig.serial(), serial(renewed))


async def test_session_of_an_old_client_ca_is_not_resumed(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    shown = rig.authority.pair("web")
    context = rig.authority.client(shown)
    async with tls_client(port(rig.worker), context) as client:
        assert (await client.ask()).status == 200
        session = client.tls.session
    async with tls_client(port(rig.worker), context, session=session) as client:
        assert client.tls.session_reused
    rig.mount.write(rig.authority.pair("a.test"), ca=other)
    await rig.settle()
    async with tls_client(port(rig.worker), context, session=session) as client:
        assert not client.tls.session_reused
        with pytest.raises(ssl.SSLError):
            await client.ask()
    assert rig.worker.listeners["inbound"].handshakes[Handshake.CERTIFICATE] == 1


async def test_key_that_everybody_may_read_is_warned_of_once(rig: Rig) -> None:
    assert rig.told.take() == []
    open_key = rig.authority.pair("a.test")
    open_key.key.chmod(0o644)
    rig.mount.write(open_key)
    os.chmod(rig.mount.folder / "tls.key", 0o644)
    await rig.settle()
    assert rig.told.take() == ["tls.renewed", "tls.key_open"]
    another = rig.authority.pair("a.test")
    another.key.chmod(0o644)
    rig.mount.write(another)
    await rig.settle()
    assert rig.told.take() == ["tls.renewed"]


async def test_what_is_shown_has_the_end_and_never_the_key(rig: Rig) -> None:
    (owner,) = rig.rotation.told()
    assert owner["owner"] == "listener/inbound"
    (number,) = rig.rotation.numbers()
    assert 29 * 86_400 < number.seconds_left < 30 * 86_400
    assert number.file == str(rig.mount.folder / "tls.crt")
    key = (rig.mount.folder / "tls.key").read_text()
    shown = f"{owner} {number} {rig.worker.listeners['inbound'].served!r} {rig.worker.control.snapshot}"
    assert not any(line in shown for line in key.splitlines() if line)


async def test_failed_handshakes_are_told_in_lines_that_do_not_flood(rig: Rig) -> None:
    sockets = rig.worker.listeners
    telling = HandshakesTold(sockets.values, lambda: rig.now, rig.told)
    inbound = sockets["inbound"]
    for _ in range(5):
        inbound.shaken(Handshake.NOT_TLS, ("192.0.2.1", 5), "plain HTTP")
        inbound.shaken(Handshake.LEFT, ("192.0.2.1", 5), "the client went away")
    telling.tick()
    ((level, kind, message),) = rig.told.lines
    assert (level, kind) == (Level.WARNING, "tls.handshake_failed")
    assert message == "listener inbound: 5 TLS handshakes have failed: plain HTTP (the last one: 192.0.2.1)"
    rig.told.take()
    inbound.shaken(Handshake.ALERT, ("192.0.2.1", 5), "unknown_ca")
    telling.tick()
    assert rig.told.lines == []
    rig.now += HANDSHAKES_TOLD_SECONDS
    telling.tick()
    telling.tick()
    assert [message for _, _, message in rig.told.lines] == [
        "listener inbound: a TLS handshake has failed: unknown_ca (the last one: 192.0.2.1)"
    ]
