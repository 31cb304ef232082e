"""Databases behind an interception, with their own servers and clients: on the app's side and as the app itself.

Redis and PostgreSQL have a client that speaks first, MariaDB a server that does. None of them knows of the sidecar.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.test_interception import INTERCEPT, LISTENERS, WITHOUT_ROUTES
from tests.support.databases import mariadb, mariadb_at, postgres, postgres_at, program, redis
from tests.support.pod import POD, SERVICES, Namespaces, Sidecar, namespaces

ROWS = 200_000
AT = SERVICES["redis"]
"""Where all databases outside of the pod are."""


class Pod:
    """What a test talks to."""

    def __init__(self, around: Namespaces, sidecar: Sidecar, folder: Path) -> None:
        self.around = around
        self.sidecar = sidecar
        self.folder = folder

    def passed(self, destination: str) -> list[str | None]:
        """The routes of the connections to it that have ended."""
        return self.sidecar.routes(destination)


@pytest.fixture(scope="module")
def to(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    folder = tmp_path_factory.mktemp("databases")
    with namespaces() as around:
        around.in_pod(*INTERCEPT)
        yield Pod(around, around.sidecar(folder, LISTENERS + WITHOUT_ROUTES), folder)


@pytest.mark.parametrize("port", [6379, 7379], ids=["opaque port", "detected"])
def test_redis_works(to: Pod, tmp_path: Path, port: int) -> None:
    redis(to.around, to.around.world, tmp_path, AT, port)
    client = [program("redis-cli", package="redis-tools"), "-h", AT, "-p", str(port)]
    assert to.around.in_pod(*client, "SET", "a", "x" * 100_000) == "OK\n"
    assert to.around.in_pod(*client, "STRLEN", "a") == "100000\n"
    counted = to.around.in_pod(*client, "-r", "300", "INCR", "n").split()
    assert counted == [str(number) for number in range(1, 301)], "one connection, many turns"
    assert set(to.passed(f"{AT}:{port}")) == {"pass_through"}


def test_a_client_of_redis_hears_what_comes_later(to: Pod, tmp_path: Path) -> None:
    redis(to.around, to.around.world, tmp_path, AT, 6380)
    client = [program("redis-cli", package="redis-tools"), "-h", AT, "-p", "6380"]
    listener = to.around.start(to.around.pod, *client, "SUBSCRIBE", "news")
    assert listener.stdout is not None
    heard = [listener.stdout.readline().strip() for _ in range(3)]
    assert heard == ["subscribe", "news", "1"]
    to.around.in_pod(*client, "PUBLISH", "news", "it rains")
    assert [listener.stdout.readline().strip() for _ in range(3)] == ["message", "news", "it rains"]


@pytest.mark.parametrize("port", [5432, 7432], ids=["opaque port", "detected"])
def test_postgresql_works(to: Pod, tmp_path: Path, port: int) -> None:
    postgres(to.around, to.around.world, tmp_path, AT, port)
    psql = [program("psql", package="postgresql-client"), *postgres_at(AT, port)]
    made = f"CREATE TABLE t AS SELECT n, md5(n::text) AS word FROM generate_series(1, {ROWS}) AS n"
    to.around.in_pod(*psql, "-c", made)
    copied = to.around.in_pod(*psql, "-c", "COPY t TO STDOUT")
    assert copied.count("\n") == ROWS
    kept = to.folder / "copied"
    kept.write_text(copied)
    to.around.in_pod(*psql, "-c", f"\\copy t FROM '{kept}'")
    assert to.around.in_pod(*psql, "-c", "SELECT count(*) FROM t") == f"{2 * ROWS}\n"
    assert set(to.passed(f"{AT}:{port}")) == {"pass_through"}


def test_mariadb_works(to: Pod, tmp_path: Path) -> None:
    mariadb(to.around, to.around.world, tmp_path, AT, 7306)
    client = [program("mariadb", package="mariadb-client"), *mariadb_at(AT, 7306)]
    to.around.in_pod(*client, "-e", "CREATE TABLE t AS SELECT seq, md5(seq) AS word FROM seq_1_to_20000")
    assert to.around.in_pod(*client, "-e", "SELECT * FROM t").count("\n") == 20_000
    assert set(to.passed(f"{AT}:7306")) == {"pass_through"}


def test_a_pod_whose_app_is_postgresql_works(to: Pod, tmp_path: Path) -> None:
    postgres(to.around, to.around.pod, tmp_path, "0.0.0.0", 5433)
    psql = [program("psql", package="postgresql-client"), *postgres_at(POD, 5433)]
    assert to.around.in_world(*psql, "-c", "SELECT 6 * 7") == "42\n"
    to.around.in_world(*psql, "-c", "SELECT pg_sleep(1.5)")
    assert set(to.passed(f"{POD}:5433")) == {"pass_through"}
