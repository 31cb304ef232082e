"""What the tests' processes listen on must not collide by chance."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator

import pytest

from tests.support import ports
from tests.support.ports import free_ports


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a process that was given no port yet."""
    claims: list[socket.socket] = []
    monkeypatch.setattr(ports, "_own", deque())
    monkeypatch.setattr(ports, "_claims", claims)
    yield
    for name in claims:
        name.close()


@pytest.mark.usefixtures("_fresh")
def test_no_port_is_handed_out_twice_in_a_row() -> None:
    given = [port for _ in range(50) for port in free_ports(5)]
    assert len(set(given)) == 250


@pytest.mark.usefixtures("_fresh")
def test_a_call_may_ask_for_more_than_one_block() -> None:
    assert len(set(free_ports(ports.BLOCK + 1))) == ports.BLOCK + 1


_ASKS = """
import sys
from tests.support import ports
ports.CLAIM = sys.argv[1]
ports._candidates = lambda: range(16_000, 16_000 + 2 * ports.BLOCK)
print(*ports.free_ports(3), flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("_fresh")
def test_another_process_is_given_others(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = f"tests-of-ports-{os.getpid()}"
    monkeypatch.setattr(ports, "CLAIM", claim)
    monkeypatch.setattr(ports, "_candidates", lambda: range(16_000, 16_000 + 2 * ports.BLOCK))
    command = [sys.executable, "-c", _ASKS, claim]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        theirs = {int(port) for port in other.stdout.readline().split()}
        mine = set(free_ports(300))
        with pytest.raises(OSError, match="free ports wanted"):
            free_ports(ports.BLOCK + 1)
        other.communicate()
    assert len(theirs) == 3
    assert mine.isdisjoint(theirs)


@pytest.mark.usefixtures("_fresh")
def test_a_port_that_somebody_shares_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        held.listen()
        monkeypatch.setattr(ports, "_candidates", lambda: [held.getsockname()[1]])
        with pytest.raises(OSError, match="1 free ports wanted, 0 found"):
            free_ports(1)
