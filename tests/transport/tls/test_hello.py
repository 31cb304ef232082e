"""The first message of a TLS client, as OpenSSL writes it and as nobody should."""

from __future__ import annotations

import ssl
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.transport.tls.hello import MAX_HELLO_BYTES, ClientHello, HelloReader, HelloTooLong, NotTls


def read_hello(data: bytes) -> ClientHello | None:
    return HelloReader().feed(data)


def hello(name: str | None = "a.test", alpn: tuple[str, ...] = ("h2", "http/1.1")) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def in_records(data: bytes, size: int) -> bytes:
    """The same message in records of so many bytes each."""
    message = data[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces)


def test_name_is_read_from_what_openssl_writes() -> None:
    assert read_hello(hello("a.test")) == ClientHello("a.test", frozenset({"h2", "http/1.1"}))


def test_name_is_compared_in_lower_case() -> None:
    data = hello("a.test").replace(b"a.test", b"A.TesT")
    assert read_hello(data) == ClientHello("a.test", frozenset({"h2", "http/1.1"}))


def test_client_without_a_name_has_none() -> None:
    assert read_hello(hello(None, ())) == ClientHello("")


def test_message_is_read_byte_by_byte_and_ends_at_its_own_end() -> None:
    data, reader = hello(), HelloReader()
    assert [reader.feed(data[at : at + 1]) for at in range(len(data) - 1)] == [None] * (len(data) - 1)
    assert reader.feed(data[-1:]) == ClientHello("a.test", frozenset({"h2", "http/1.1"}))
    assert reader.raw == data
    assert read_hello(data + b"what follows") == ClientHello("a.test", frozenset({"h2", "http/1.1"}))


def test_many_tiny_records_cost_no_more_for_coming_byte_by_byte() -> None:
    """Counted in lines of Python, which no other load on the machine changes."""
    data = in_records(hello(), 1)
    lines = 0

    def count(_frame: object, event: str, _arg: object) -> object:
        nonlocal lines
        lines += event == "line"
        return count

    reader, before = HelloReader(), sys.gettrace()
    sys.settrace(count)
    try:
        for at in range(len(data)):
            reader.feed(data[at : at + 1])
    finally:
        sys.settrace(before)
    assert lines < 60 * len(data)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 5000])
def test_message_in_many_records_is_one(size: int) -> None:
    data = in_records(hello(), size)
    assert read_hello(data) == ClientHello("a.test", frozenset({"h2", "http/1.1"}))
    assert read_hello(data[:-1]) is None


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"GET / HTTP/1.1\r\n", "plain HTTP"),
        (b"G", "plain HTTP"),
        (b"PRI * HTTP/2.0\r\n", "plain HTTP"),
        (b"\x80\x2e\x01\x03\x01", "no handshake of TLS"),
        (b"\x15\x03\x01\x00\x02\x01\x00", "no handshake of TLS"),
        (b"\x16\x02", "no handshake of TLS"),
        (b"\x16\x03\x01\x00\x00", "a record of TLS with an impossible length"),
        (b"\x16\x03\x01\x40\x01", "a record of TLS with an impossible length"),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x10", "a message of TLS that no connection begins with"),
        (b"\x16\x03\x01\x00\x01\x01GET", "another record of TLS in the midst of the first message"),
    ],
)
def test_anything_else_is_named(data: bytes, what: str) -> None:
    with pytest.raises(NotTls, match=f"^{what}$"):
        read_hello(data)


def test_message_has_a_longest_size() -> None:
    at_most = MAX_HELLO_BYTES - 4
    head = b"\x16\x03\x01\x00\x04\x01"
    assert read_hello(head + at_most.to_bytes(3)) is None
    with pytest.raises(HelloTooLong):
        read_hello(head + (at_most + 1).to_bytes(3))


def test_tiny_records_do_not_make_room_for_more() -> None:
    data = in_records(b"\x16\x03\x01\x00\x00\x01\x00\x30\x00" + b"x" * 0x3000, 1)
    assert len(data) > MAX_HELLO_BYTES
    assert read_hello(data[: MAX_HELLO_BYTES - 1]) is None
    with pytest.raises(HelloTooLong):
        read_hello(data[:MAX_HELLO_BYTES])


@settings(max_examples=500)
@given(st.binary(max_size=300), st.integers(0, 300), st.binary(max_size=8))
def test_no_message_makes_the_reader_fail(noise: bytes, at: int, change: bytes) -> None:
    sound = hello()
    for data in (b"\x16\x03\x01\x01\x00" + noise, sound[:at] + change + sound[at + len(change) :]):
        try:
            found = read_hello(data)
        except (NotTls, HelloTooLong):
            continue
        assert found is None or found.server_name.isascii()


def test_a_message_in_tiny_records_is_not_read_beyond_its_bound() -> None:
    reader = HelloReader()
    message = b"\x01" + (16_380).to_bytes(3, "big") + b"\x03\x03" + bytes(16_378)
    records = b"".join(b"\x16\x03\x01\x00\x01" + message[at : at + 1] for at in range(len(message)))
    with pytest.raises(HelloTooLong):
        reader.feed(records)
    assert len(reader._message) <= MAX_HELLO_BYTES // 6 + 1
