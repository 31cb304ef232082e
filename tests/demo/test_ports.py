"""Demos that run side by side must not be given the same ports."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from sidecar.demo import processes


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a demo holds until its process ends is held for one test."""
    sockets: list[socket.socket] = []
    monkeypatch.setattr(processes, "_held", sockets)
    yield
    for one in sockets:
        one.close()


def test_nobody_else_is_given_a_port_and_its_server_may_listen_on_it() -> None:
    (port,) = processes.free_ports(1)
    with socket.socket() as other:
        with pytest.raises(OSError) as refused:
            other.bind(("127.0.0.1", port))
        assert refused.value.errno == errno.EADDRINUSE
    for _ in range(2):  # and again, after it has ended
        with (
            socket.create_server(("127.0.0.1", port)),
            socket.create_connection(("127.0.0.1", port)) as client,
        ):
            assert client.getpeername()[1] == port
