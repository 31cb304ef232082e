"""Demos that run side by side must not be given the same ports."""

from __future__ import annotations

import errno
import socket

import pytest

from sidecar.demo.processes import free_ports


def test_nobody_else_is_given_a_port_and_its_server_may_listen_on_it() -> None:
    (port,) = free_ports(1)
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
