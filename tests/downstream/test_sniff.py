"""What a client speaks is told by its first bytes, whole or one by one, and nothing is waited for in vain."""

from __future__ import annotations

import ssl

import pytest

from sidecar.downstream.sniff import Detected, FirstBytes
from sidecar.http2.preface import PREFACE

HTTP1 = [
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/1.0\n",
    b"M-SEARCH * HTTP/1.1\r\nHost: x\r\n",
    b"OPTIONS http://a/ HTTP/1.9\r\n",
]
OTHER = [
    b"\r\nGET / HTTP/1.1\r\n", b"*1\r\n$4\r\nPING\r\n", b"PING\r\n", b"GET /\r\n", b"GET / HTTP/2.0\r\n",
    b"GET  / HTTP/1.1\r\n", b"EHLO me\r\n", b"\0\0\0\x08\x04\xd2\x16\x2f", b"SSH-2.0-x\r\n", b"\x16\x03\x01\xff\xff",
    b"PRI * HTTP/2.0\r\n\r\nNO\r\n\r\n", b"(GET / HTTP/1.1\r\n", b"A" * 33,
]  # fmt: skip


def hello(name: str | None) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    context.verify_mode = ssl.CERT_NONE if name is None else ssl.CERT_REQUIRED
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def detected(data: bytes, size: int) -> tuple[Detected, FirstBytes]:
    """What is said of the first pieces that are enough."""
    first = FirstBytes()
    for start in range(0, len(data), size):
        found = first.feed(data[start : start + size])
        if found is not Detected.UNDECIDED:
            return found, first
    return Detected.UNDECIDED, first


@pytest.mark.parametrize("size", [1, 5, 10_000])
@pytest.mark.parametrize("data", HTTP1)
def test_http1_is_a_first_line_that_ends_in_its_version(data: bytes, size: int) -> None:
    assert detected(data, size)[0] is Detected.HTTP1


@pytest.mark.parametrize("size", [1, 5, 10_000])
@pytest.mark.parametrize("data", OTHER)
def test_everything_else_is_something_else(data: bytes, size: int) -> None:
    assert detected(data, size)[0] is Detected.OTHER


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_http2_is_its_whole_preface(size: int) -> None:
    assert detected(PREFACE, size)[0] is Detected.HTTP2
    assert detected(PREFACE[:-1], size)[0] is Detected.UNDECIDED


@pytest.mark.parametrize("size", [1, 100, 10_000])
@pytest.mark.parametrize("name", ["payments.test", None])
def test_tls_is_read_for_its_name(name: str | None, size: int) -> None:
    found, first = detected(hello(name), size)
    assert (found, first.server_name) == (Detected.TLS, name or "")


@pytest.mark.parametrize("data", [b"G", b"GET", b"GET /", b"GET / HTTP/1.1", b"PRI", b"\x16\x03", b"A" * 32])
def test_what_may_still_become_http_or_tls_is_waited_for(data: bytes) -> None:
    assert detected(data, 1)[0] is Detected.UNDECIDED


def test_a_first_line_without_end_is_not_waited_for() -> None:
    assert detected(b"GET /" + b"a" * 20_000, 1000)[0] is Detected.OTHER
