"""Connections that come over a UNIX socket, and wait to be taken as in a listening socket's queue."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from sidecar.transport.handed import Handed, hand_over, receive


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        yield here, there


def is_readable(handed: Handed) -> bool:
    return bool(select.select([handed], [], [], 0)[0])


def test_a_connection_arrives_with_its_listeners_name(ends: tuple[socket.socket, socket.socket]) -> None:
    client, served = socket.socketpair()
    with client:
        assert hand_over(ends[0], "inbound", served)
        served.close()
        client.sendall(b"before it was taken")
        received = receive(ends[1])
        assert received is not None
        name, connection = received
        with connection:
            assert (name, connection.recv(64)) == ("inbound", b"before it was taken")
            assert not os.get_inheritable(connection.fileno())
            assert not connection.getblocking()
    assert receive(ends[1]) is None


def test_a_full_queue_takes_no_more_and_loses_nothing(ends: tuple[socket.socket, socket.socket]) -> None:
    client, served = socket.socketpair()
    with client, served:
        count = 0
        while hand_over(ends[0], "x", served):
            count += 1
        taken = []
        while (received := receive(ends[1])) is not None:
            taken.append(received[1])
        assert len(taken) == count > 1
        assert hand_over(ends[0], "x", served)
        for connection in taken:
            connection.close()


def test_a_message_without_its_connection_or_with_several_is_none(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ends[0].send(b"inbound")
    assert receive(ends[1]) is None
    socket.send_fds(ends[0], [b"inbound"], [0, 1, 2])
    assert receive(ends[1]) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_waits_is_taken_in_its_order_and_readable_until_then() -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    handed = Handed()
    assert not is_readable(handed)
    for _, served in pairs:
        handed.put(served)
    assert is_readable(handed)
    assert handed.accept()[0] is pairs[0][1]
    assert is_readable(handed)
    assert handed.rest() == [pairs[1][1], pairs[2][1]]
    assert not is_readable(handed)
    with pytest.raises(BlockingIOError):
        handed.accept()

    handed.put(pairs[0][1])
    handed.close()
    assert pairs[0][0].recv(1) == b"", "whoever was not taken is let go"
    for client, served in pairs:
        client.close()
        served.close()
