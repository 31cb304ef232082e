"""Java's own clients and servers: those of the JDK (`Peer.java`) and of grpc-java (`GrpcPeer.java`).

Each is a process that is started once, from its source, and asked by lines.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.support.authority import Pair

JAVA = shutil.which("java")
HAS_COMPILER = shutil.which("javac") is not None
"""To run a source needs it."""
LIBRARIES = Path("/usr/share/java")
JARS = tuple(
    LIBRARIES / f"{name}.jar"
    for name in (
        "grpc-api", "grpc-context", "grpc-core", "grpc-netty", "grpc-stub", "guava", "perfmark-api",
        "netty-all", "netty-buffer", "netty-codec", "netty-codec-http", "netty-codec-http2", "netty-common",
        "netty-handler", "netty-resolver", "netty-transport", "jctools-core",
    )
)  # fmt: skip
needs_java = pytest.mark.skipif(
    JAVA is None or not HAS_COMPILER, reason="no JDK here (Debian package default-jdk-headless)"
)
needs_grpc_java = pytest.mark.skipif(
    not all(jar.exists() for jar in JARS),
    reason="no grpc-java here (Debian packages libgrpc-java, libnetty-java, libguava-java, libperfmark-java)",
)


class JavaPeer:
    """Runs until the end of its block."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def said(self) -> str:
        """What it says next, in a line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "it has ended"
        return line.rstrip("\n")

    def ask(self, *words: object) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return self.said()


@contextmanager
def java_peer(source: str, *arguments: Path, jars: Sequence[Path] = ()) -> Iterator[JavaPeer]:
    assert JAVA is not None
    # Short lives: the second compiler would take longer than it saves.
    options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
    path = ["-cp", ":".join(map(str, jars))] if jars else []
    process = subprocess.Popen(
        [JAVA, *options, *path, str(Path(__file__).with_name(source)), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what its servers say of clients that leave
        text=True,
        encoding="utf-8",
    )
    try:
        yield JavaPeer(process)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def as_pkcs12(pair: Pair) -> Path:
    """The form in which Java takes a certificate with its key."""
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, pkcs12.PKCS12PrivateKeyTypes)
    file = pair.key.with_suffix(".p12")
    locked = serialization.BestAvailableEncryption(b"test")
    file.write_bytes(pkcs12.serialize_key_and_certificates(b"own", key, pair.certificate, None, locked))
    return file
