"""What the kernel tells of a listening socket."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from sidecar.transport import kernel


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_it_says_how_many_wait_to_be_accepted(family: socket.AddressFamily) -> None:
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(family))
        listening.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        listening.listen(10)
        assert kernel.waiting(listening) == 0
        for _ in range(3):
            stack.enter_context(socket.create_connection(listening.getsockname()[:2]))
        assert kernel.waiting(listening) == 3
        listening.accept()[0].close()
        assert kernel.waiting(listening) == 2


def test_of_a_unix_socket_it_says_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen(10)
        assert kernel.waiting(listening) == 0


def test_of_a_socket_that_was_closed_it_says_nothing() -> None:
    listening = socket.socket()
    listening.close()
    assert kernel.waiting(listening) == 0
