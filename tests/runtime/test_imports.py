"""What a serving process has in memory: nothing that only some need, or only at the start."""

from __future__ import annotations

import subprocess
import sys

import pytest

NOT_THERE = {
    "aiohttp", "email", "importlib.metadata", "importlib.resources", "opentelemetry", "pydantic", "redis", "rich",
    "sidecar.config.endpoint_file", "sidecar.config.yaml", "sidecar.core.across", "sidecar.core.fleet",
    "sidecar.downstream.http2", "sidecar.forwarding.notices", "sidecar.http2.codec", "sidecar.http2.hpack",
    "sidecar.kubernetes", "sidecar.runtime.crossing", "sidecar.runtime.fleet.redis_client",
    "sidecar.runtime.fleet.side", "sidecar.upstream.http2_pool", "tempfile", "urllib.request", "yaml", "zipfile",
}  # fmt: skip


def test_a_serving_process_has_no_library_in_memory_that_it_does_not_serve_with() -> None:
    program = "import sys, sidecar.cli.run, sidecar.cli.serving, sidecar.runtime.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert NOT_THERE.isdisjoint(done.stdout.split())


def test_what_a_snapshot_says_is_told_without_pydantic() -> None:
    """It would take 10 MiB at the first reload, for good: only the loading process reads files."""
    program = """if True:
        import sys
        from sidecar.config.schema.file import BUILT_IN
        from sidecar.config.tell import diff, render
        from sidecar.core.snapshot import Listener, Address, Route, Upstream, Match

        render.prepare()
        route = Route("one", "inbound", (Match(),), (("app", 1),))
        told = [render.process(BUILT_IN), render.upstream(Upstream("app", ())), render.route(route)]
        told.append(render.listener(Listener("inbound", Address("127.0.0.1", 1))))
        assert all(told)
        assert diff.diff(BUILT_IN, BUILT_IN) == diff.Diff()
        print(*sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"pydantic", "pydantic_core", "yaml"}.isdisjoint(done.stdout.split())


def test_the_loading_process_is_started_before_what_takes_long_to_import() -> None:
    program = "import sys, sidecar.cli.run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"asyncio", "dataclasses", "hashlib", "logging", "ssl", "uvloop"}.isdisjoint(done.stdout.split())


def test_the_loading_process_has_nothing_in_memory_of_what_serves_or_makes_the_schema() -> None:
    program = "import sys, sidecar.config.process.program, sidecar.config.load.assembly; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    others = {"asyncio", "pydantic", "pydantic_core", "sidecar.core.breaker", "sidecar.core.ejection"}
    assert others.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("words", [["run"], ["run", "sidecar.yaml"]])
def test_the_words_of_a_container_are_read_without_argparse(words: list[str]) -> None:
    program = """
import sys, sidecar.__main__, sidecar.cli.run
sidecar.cli.run.main = lambda options: print(options.file, *sys.modules) or 7
sys.exit(sidecar.__main__.main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    file, *modules = done.stdout.split()
    assert (done.returncode, file) == (7, (*words, "None")[1])
    assert {"argparse", "bz2", "difflib", "gettext", "shutil"}.isdisjoint(modules)
