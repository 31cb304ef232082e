"""Changes of keys cost their sender nothing: some are followed, and who sends them without end is cut."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from sidecar.core.errors import Reason
from sidecar.transport.tls.failures import TlsFailed
from sidecar.transport.tls.records import BARREN_BURST
from tests.support.certificates import Certificates
from tests.support.key_updates import KeyUpdates, keyed
from tests.transport.tls.test_pieces import WHOLE, Both, Sink
from tests.transport.tls.test_transport import serving, trusting


class Changing:
    """A server of ours, and a client's keys after the handshake."""

    def __init__(self, both: Both, sink: Sink, updates: KeyUpdates) -> None:
        self.both = both
        self.sink = sink
        self.updates = updates

    def send(self, data: bytes) -> None:
        self.both.wires[1].protocol.data_received(data)

    @property
    def answered_bytes(self) -> int:
        return len(self.both.wires[1].sent)

    async def failed(self) -> TlsFailed:
        error = await self.sink.lost()
        assert isinstance(error, TlsFailed)
        return error


@pytest.fixture
async def client(certificates: Certificates, tmp_path: Path) -> Changing:
    keys = tmp_path / "keys"
    both = Both(keyed(trusting(certificates.ca), keys), serving(certificates.pair("a", "a.test")))
    _, sink = await both.connected(lambda: WHOLE)
    assert sink.link is not None
    sink.link.write(b"first")  # with the ticket
    both.wires[1].sent.clear()
    cipher = both.ends[0].tls.cipher()
    assert cipher is not None
    return Changing(both, sink, KeyUpdates(keys, cipher[0]))


@pytest.mark.parametrize("is_answer_wanted", [False, True], ids=["told", "asked"])
async def test_some_are_followed_and_one_more_is_too_many(client: Changing, is_answer_wanted: bool) -> None:
    client.send(client.updates.records(BARREN_BURST, is_answer_wanted=is_answer_wanted))
    client.send(client.updates.data(b"hello"))
    assert client.sink.data == b"hello"
    assert (client.answered_bytes > 0) == is_answer_wanted
    client.send(client.updates.records(1, is_answer_wanted=is_answer_wanted))
    error = await client.failed()
    assert (error.reason, error.detail) == (Reason.TLS_PROTOCOL, "too many changes of keys")


@pytest.mark.parametrize("data", [b"", b"x"], ids=["alone", "with data between them"])
async def test_of_a_flood_in_one_read_no_more_is_worked_through(client: Changing, data: bytes) -> None:
    """Told by what is answered: all that were worked through are."""
    flood = b""
    for _ in range(40):
        flood += client.updates.records(50, is_answer_wanted=True)
        flood += client.updates.data(data) if data else b""
    client.send(flood)
    error = await client.failed()
    assert error.detail == "too many changes of keys"
    assert client.answered_bytes <= (BARREN_BURST + 2) * 27


async def test_what_comes_with_the_end_of_the_handshake_is_counted_too(
    certificates: Certificates, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    client = keyed(trusting(certificates.ca), keys)
    both = Both(client, serving(certificates.pair("a", "a.test")))
    await both.run(lambda: WHOLE, lambda: both.shaking[0].done.done())
    wire, cipher = both.wires[0], both.ends[0].tls.cipher()
    assert cipher is not None
    wire.sent += KeyUpdates(keys, cipher[0]).records(500, is_answer_wanted=False)
    sink = Sink()
    wire.carry(both.wires[1], WHOLE)
    (await both.shaking[1].done).attach(sink)
    error = await sink.lost()
    assert isinstance(error, TlsFailed)
    assert error.detail == "too many changes of keys"


async def test_in_tls_1_2_data_goes_on_as_before(certificates: Certificates) -> None:
    version = ssl.TLSVersion.TLSv1_2
    both = Both(trusting(certificates.ca), serving(certificates.pair("a", "a.test"), version))
    client, server = await both.connected(lambda: WHOLE)
    assert client.link is not None
    for _ in range(3 * BARREN_BURST):
        client.link.write(b"x")
    await both.run(lambda: WHOLE, lambda: len(server.data) == 3 * BARREN_BURST)
