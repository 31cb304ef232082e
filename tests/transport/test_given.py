"""Sockets that another process has left: whoever binds their address gets them, once, and all of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.core.snapshot import Address
from sidecar.transport.bind import bind, bind_many, bind_own
from sidecar.transport.given import GIVEN

KEY = "listeners.x.address"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    GIVEN.close()
    GIVEN.keep()


def left(address: Address, count: int) -> tuple[list[socket.socket], Address]:
    """What another process has bound; with its port."""
    sockets = bind_many(address, KEY, count)
    GIVEN.adopt(os.dup(one.fileno()) for one in sockets)
    if address.path is not None:
        return sockets, address
    return sockets, Address(address.host, sockets[0].getsockname()[1])


def numbers(sockets: list[socket.socket]) -> set[int]:
    """Of the kernel's sockets, whichever file they are."""
    return {os.fstat(one.fileno()).st_ino for one in sockets}


def test_they_are_lent_until_this_process_keeps_them_in_its_forks_too() -> None:
    sockets, address = left(Address("127.0.0.1", 0), 1)
    assert GIVEN.lends(sockets[0])
    taken, own = bind_many(address, KEY, 2)
    assert GIVEN.lends(taken)
    assert not GIVEN.lends(own), "bound anew beside it"
    told, tell = os.pipe()
    pid = os.fork()
    if not pid:
        os.read(told, 1)
        os._exit(GIVEN.lends(sockets[0]))
    GIVEN.keep()
    os.write(tell, b".")
    assert not GIVEN.lends(sockets[0])
    assert os.waitpid(pid, 0)[1] == 0
    for file in (told, tell):
        os.close(file)
    for one in (*sockets, taken, own):
        one.close()


@pytest.mark.parametrize(("before", "now"), [(1, 1), (1, 3), (3, 2), (2, 1)])
@pytest.mark.parametrize("host", ["127.0.0.1", "0:0:0:0:0:0:0:1"])
def test_all_sockets_of_an_address_are_taken_and_more_are_bound_where_they_are_too_few(
    before: int, now: int, host: str
) -> None:
    own, address = left(Address(host, 0), before)
    taken = bind_many(address, KEY, now)
    assert numbers(own) <= numbers(taken)
    assert len(taken) == max(before, now)
    for one in (*own, *taken):
        one.close()
    assert not GIVEN


async def test_a_process_that_serves_alone_takes_from_each_of_several() -> None:
    own, address = left(Address("127.0.0.1", 0), 3)
    bound = await bind_own(address, KEY)
    assert numbers([bound.listening, *bound.others]) == numbers(own)
    for one in (*own, bound.listening, *bound.others):
        one.close()


def test_a_socket_is_taken_once_and_by_its_own_address_alone(tmp_path: Path) -> None:
    (own,), address = left(Address("127.0.0.1", 0), 1)
    (other,), unix = left(Address("", 0, str(tmp_path / "socket")), 1)
    found = bind(Address("", 0, unix.path), "admin.address")
    assert numbers([found]) == numbers([other])
    with pytest.raises(OSError, match="it is in use"):
        bind(Address("0.0.0.0", address.port), KEY)
    first = bind(address, KEY)
    assert numbers([first]) == numbers([own])
    with pytest.raises(OSError, match="it is in use"):
        bind(address, KEY)
    for one in (own, other, found, first):
        one.close()
