"""What the tests' processes listen on must not collide by chance."""

from __future__ import annotations

import socket

import pytest

from tests.support import ports
from tests.support.ports import free_ports


def test_no_port_is_handed_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_given", set())
    given = [port for _ in range(100) for port in free_ports(5)]
    assert len(set(given)) == 500


def test_a_port_that_somebody_shares_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        held.listen()
        monkeypatch.setattr(ports, "_candidates", lambda: [held.getsockname()[1]])
        with pytest.raises(OSError, match="1 free ports wanted, 0 found"):
            free_ports(1)
