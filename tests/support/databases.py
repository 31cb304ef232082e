"""Real database servers for tests, each in a folder of its own and under a user without rights.

Redis, PostgreSQL and MariaDB as Debian has them. A server is asked until it answers; what it says is in its log.
"""

from __future__ import annotations

import shutil
from glob import glob
from pathlib import Path

import pytest

from tests.support.pod import Namespaces

OWNER = "nobody"
"""PostgreSQL and MariaDB refuse to run as root."""
READY_TRIES = 200
LIBRARY = "/usr/lib/postgresql/*/bin/"
"""Debian keeps the programs of each version of PostgreSQL apart."""


def program(*names: str, package: str) -> str:
    """Where the first of them is that is there. Skips the test, with what to install, where none is."""
    for name in names:
        found = shutil.which(name) or next(iter(sorted(glob(LIBRARY + name))), None)
        if found is not None:
            return found
    pytest.skip(f"needs {names[0]} (Debian package {package})")


def redis(around: Namespaces, namespace: str, folder: Path, address: str, port: int) -> None:
    server = program("redis-server", package="redis-server")
    options = ["--bind", address, "--port", str(port), "--protected-mode", "no", "--save", ""]
    around.start(namespace, server, *options, "--dir", str(around.folder()), log=folder / "redis.log")
    client = program("redis-cli", package="redis-tools")
    _until_answered(around, namespace, client, "-h", address, "-p", str(port), "PING")


def postgres(around: Namespaces, namespace: str, folder: Path, address: str, port: int) -> None:
    """User `nobody` may do all, without a password."""
    data = around.folder() / "postgres"
    initdb = program("initdb", package="postgresql")
    server = program("postgres", package="postgresql")
    options = ["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
    around.run_in(namespace, *_as_owner(), initdb, "-D", str(data), *options)
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 0.0.0.0/0 trust\n")
    settings = [f"listen_addresses={address}", f"unix_socket_directories={data}", "fsync=off"]
    arguments = ["-D", str(data), "-p", str(port), *(word for one in settings for word in ("-c", one))]
    around.start(namespace, *_as_owner(), server, *arguments, log=folder / "postgres.log")
    psql = program("psql", package="postgresql-client")
    _until_answered(around, namespace, psql, *postgres_at(address, port), "-c", "SELECT 1")


def postgres_at(host: str, port: int) -> list[str]:
    """The words by which psql finds it, and prints values alone."""
    return ["-h", host, "-p", str(port), "-U", OWNER, "-d", "postgres", "-X", "-A", "-t", "-q"]


def mariadb(around: Namespaces, namespace: str, folder: Path, address: str, port: int) -> None:
    """User `app` may do all, without a password."""
    data = around.folder() / "mariadb"
    install = program("mariadb-install-db", package="mariadb-server")
    server = program("mariadbd", package="mariadb-server")
    options = ["--no-defaults", f"--datadir={data}"]
    around.run_in(namespace, *_as_owner(), install, *options, "--auth-root-authentication-method=normal")
    first = data.parent / "first.sql"
    first.write_text("CREATE USER app@'%';\nGRANT ALL ON *.* TO app@'%';\nCREATE DATABASE shop;\n")
    first.chmod(0o644)
    options += [f"--socket={data}/socket", f"--bind-address={address}", f"--port={port}"]
    options += [f"--init-file={first}", "--skip-name-resolve"]
    around.start(namespace, *_as_owner(), server, *options, log=folder / "mariadb.log")
    client = program("mariadb", package="mariadb-client")
    _until_answered(around, namespace, client, *mariadb_at(address, port), "-e", "SELECT 1")


def mariadb_at(host: str, port: int) -> list[str]:
    """The words by which its client finds it, and prints values alone."""
    return ["--no-defaults", "-h", host, "-P", str(port), "-u", "app", "-N", "-B", "shop"]


def _as_owner() -> list[str]:
    return ["setpriv", f"--reuid={OWNER}", "--regid=nogroup", "--clear-groups", "--"]


def _until_answered(around: Namespaces, namespace: str, *command: str) -> None:
    for _ in range(READY_TRIES):
        if around.run_in(namespace, *command, check=False):
            return
        around.run_in(namespace, "sleep", "0.1")
    raise AssertionError(f"{command[0]} has had no answer")
