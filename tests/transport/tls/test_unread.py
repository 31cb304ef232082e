"""What waits in OpenSSL, or before it, when one direction ends or nobody can read what was shown."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any, cast

import pytest

from sidecar.core.errors import Reason
from sidecar.transport.tls.failures import TlsFailed
from sidecar.transport.tls.transport import MOST_RECORDS, TlsTransport
from tests.support.certificates import Certificates
from tests.transport.tls.test_transport import VERSIONS, Shaking, Sink, serving, trusting


class Raw:
    """A loop's transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Client:
    """Python's TLS as a client, by hand."""

    def __init__(self, ca: str, version: ssl.TLSVersion) -> None:
        context = trusting(ca)
        context.maximum_version = version
        self.read, self.written = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.read, self.written, server_hostname="a.test")

    def shake(self, transport: TlsTransport, raw: Raw) -> None:
        for _ in range(9):
            is_done = True
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                is_done = False
            if self.written.pending:
                transport.data_received(self.written.read())
            self.read.write(bytes(raw.written))
            raw.written.clear()
            if is_done:
                return
        raise AssertionError("the handshake does not end")


class Ending(Sink):
    """Ends its own direction as soon as something has come."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        assert self.link is not None
        self.link.end_writing()


def shaken(made: Certificates, version: ssl.TLSVersion) -> tuple[TlsTransport, Raw, Client]:
    context = serving(made.pair("a", "a.test"), version)
    transport = TlsTransport(
        Shaking(),
        lambda incoming, outgoing: context.wrap_bio(incoming, outgoing, server_side=True),
        is_server=True,
    )
    raw, client = Raw(), Client(made.ca, version)
    transport.connection_made(cast(Any, raw))
    client.shake(transport, raw)
    return transport, raw, client


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_has_come_is_read_after_our_own_direction_has_ended(tmp_path: Path, version: str) -> None:
    transport, _, client = shaken(Certificates(tmp_path), VERSIONS[version])
    sink = Ending(keeps=True)
    transport.attach(sink)
    await asyncio.sleep(0)
    count = 2 * MOST_RECORDS + 500
    for _ in range(count):
        client.tls.write(b"x")
    transport.data_received(client.written.read())
    await sink.until(lambda: len(sink.data) >= count)
    assert sink.data == b"x" * count
    transport.abort()


@pytest.mark.parametrize("version", VERSIONS)
async def test_nothing_is_kept_of_what_comes_behind_the_end_and_a_reset_ends_it(
    tmp_path: Path, version: str
) -> None:
    transport, _, client = shaken(Certificates(tmp_path), VERSIONS[version])
    sink = Sink(keeps=True)
    transport.attach(sink)
    await asyncio.sleep(0)
    client.tls.write(b"hello")
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    transport.data_received(client.written.read() + bytes(100_000))
    transport.data_received(bytes(100_000))
    assert transport._unfed == b""
    transport.connection_lost(ConnectionResetError())
    assert isinstance(await sink.lost(), ConnectionResetError)
    assert sink.data == b"hello"


@pytest.mark.plain
async def test_a_certificate_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, _, _ = shaken(Certificates(tmp_path), VERSIONS["1.3"])

    class Unreadable:
        def getpeercert(self) -> dict[str, Any]:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a name that is no UTF-8")

    monkeypatch.setattr(transport, "_tls", Unreadable())
    with pytest.raises(TlsFailed, match="cannot be read") as caught:
        _ = transport.peer_certificate
    assert caught.value.reason is Reason.TLS_CERTIFICATE
