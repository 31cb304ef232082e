"""A listening socket that ends hands over everyone who has connected, and refuses who comes then."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from sidecar.core.snapshot import Address
from sidecar.transport.bind import bind
from sidecar.transport.last_accepts import last_accepts


def connected(to: socket.socket) -> socket.socket:
    client = socket.socket(to.family, socket.SOCK_STREAM)
    client.connect(to.getsockname())
    client.sendall(b"request")
    return client


def asked(kind: str, folder: Path) -> Address:
    return Address("", 0, str(folder / "socket")) if kind == "unix" else Address(kind, 0)


@pytest.mark.parametrize("kind", ["127.0.0.1", "::1", "unix"])
def test_all_that_wait_are_taken_with_what_they_have_sent(kind: str, tmp_path: Path) -> None:
    if kind == "::1" and not socket.has_ipv6:
        pytest.skip("this host has no IPv6")
    bound = bind(asked(kind, tmp_path), "listeners.inbound.address")
    clients = [connected(bound) for _ in range(5)]
    taken = last_accepts(bound)
    bound.close()
    assert [one.recv(100) for one in taken] == [b"request"] * 5
    assert not any(one.getblocking() for one in taken)
    for one, client in zip(taken, clients, strict=True):
        one.send(b"answer")
        assert client.recv(100) == b"answer"
        client.close()
        one.close()


@pytest.mark.parametrize("kind", ["127.0.0.1", "unix"])
def test_who_comes_afterwards_is_not_connected(kind: str, tmp_path: Path) -> None:
    bound = bind(asked(kind, tmp_path), "listeners.inbound.address")
    address = bound.getsockname()
    assert last_accepts(bound) == []
    late = socket.socket(bound.family, socket.SOCK_STREAM)
    late.setblocking(False)
    result = late.connect_ex(address)
    assert result == (errno.ECONNREFUSED if kind == "unix" else errno.EINPROGRESS)
    assert last_accepts(bound) == []
    bound.close()
    late.close()
