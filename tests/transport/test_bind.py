"""An address that cannot be had: which key of the configuration asks for it, and what can be done."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.core.snapshot import Address
from sidecar.transport.bind import bind

KEY = "listeners.outbound.address"
EXPLAINED = f"{KEY}: cannot listen on "


def refusal(address: Address) -> str:
    with pytest.raises(OSError) as refused:
        bind(address, KEY)
    text = str(refused.value)
    assert text.startswith(f"{EXPLAINED}{address}: ")
    assert "Errno" not in text
    return text.removeprefix(f"{EXPLAINED}{address}: ")


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a name short enough for a socket in it."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def at(path: Path) -> Address:
    return Address("", 0, str(path))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_taken_says_how_to_find_who_has_it(host: str) -> None:
    with closing(bind(Address("127.0.0.1", 0), KEY)) as taken:
        port = taken.getsockname()[1]
        assert refusal(Address(host, port)) == (
            f"it is in use: stop what listens there (`ss -ltnp 'sport = :{port}'` shows it), or choose another port"
        )


def test_an_address_of_another_host_says_which_could_be_taken() -> None:
    assert refusal(Address("192.0.2.1", 15001)) == (
        "this host has no such address: take one that it has, 127.0.0.1 for calls from this host alone, or "
        "0.0.0.0 for all"
    )
    assert "::1 for calls from this host alone, or :: for all" in refusal(Address("2001:db8::1", 15001))


def test_a_port_that_needs_a_right_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: socket.socket, __: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refused)
    assert refusal(Address("127.0.0.1", 80)) == (
        f"uid {os.geteuid()} may not listen there: choose a port from 1024 on, or give the process the capability "
        "NET_BIND_SERVICE"
    )


def test_a_host_without_ipv6_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refused)
    assert refusal(Address("::1", 15001)) == "this host has no IPv6: take an IPv4 address, such as 127.0.0.1"


def test_a_unix_socket_that_somebody_listens_on_is_left_to_them(folder: Path) -> None:
    path = folder / "s"
    with closing(bind(at(path), KEY)):
        inode = path.stat().st_ino
        assert refusal(at(path)) == (
            f"it is in use: stop what listens there (`ss -lxp src {path}` shows it), or choose another path"
        )
        assert path.stat().st_ino == inode


def test_a_unix_socket_whose_listener_has_no_room_is_in_use_all_the_same(folder: Path) -> None:
    path = folder / "s"
    with closing(socket.socket(socket.AF_UNIX)) as busy:
        busy.bind(str(path))
        busy.listen(0)
        with closing(socket.socket(socket.AF_UNIX)) as first:
            first.connect(str(path))
            assert "it is in use" in refusal(at(path))


def test_the_unix_socket_of_a_process_that_is_gone_is_replaced(folder: Path) -> None:
    path = folder / "s"
    bind(at(path), KEY).close()
    assert stat.S_ISSOCK(path.stat().st_mode)
    with closing(bind(at(path), KEY)), closing(socket.socket(socket.AF_UNIX)) as client:
        client.connect(str(path))


def test_a_file_in_the_way_of_a_unix_socket_is_not_touched(folder: Path) -> None:
    path = folder / "s"
    path.write_text("precious")
    assert refusal(at(path)) == "a file that is no socket is there: remove it, or choose another path"
    assert path.read_text() == "precious"


def test_a_unix_socket_needs_a_directory(folder: Path) -> None:
    assert refusal(at(folder / "none" / "s")) == f"there is no directory {folder}/none: make it"
    (folder / "file").touch()
    assert refusal(at(folder / "file" / "s")) == f"{folder}/file is no directory: choose another path"


def test_a_unix_socket_where_nothing_may_be_made_says_who_needs_the_right(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = [errno.EACCES, errno.EROFS]

    def refused(_: socket.socket, __: object) -> None:
        code = codes.pop(0)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(socket.socket, "bind", refused)
    right = f"uid {os.geteuid()} may not make a socket in {folder}: give it the right to write there"
    assert refusal(at(folder / "s")) == right
    remedy = "choose a directory that can be written to, such as a mounted emptyDir"
    assert refusal(at(folder / "s")) == f"{folder} is on a read-only file system: {remedy}"


def test_whatever_else_the_system_says_is_passed_on(folder: Path) -> None:
    assert re.search("path too long|File name too long", refusal(at(folder / ("s" * 200))))
