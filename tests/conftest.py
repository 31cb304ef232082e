"""Which build the suite runs on, and how it is spread over the cores of a machine."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator

import pytest
from hypothesis import settings

from sidecar.core import contract
from sidecar.core.contract import BUILD, IS_COMPILED

# How long one example takes says how busy the machine is. Where `CI` is set, as `.ci/run` does, the examples are the
# same in each run: what it says is about the change. New ones are looked for where somebody is there to look at them.
settings.register_profile("sidecar", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("sidecar")

WORKERS_A_CORE = 2
"""Tests with real processes wait for most of their time, and leave the core to another worker."""


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means here; only cores that this process may use are counted."""
    return WORKERS_A_CORE * len(os.sched_getaffinity(0))


def pytest_report_header() -> str:
    return f"sidecar: the {BUILD} build, {contract.__file__}"


def pytest_configure() -> None:
    """`SIDECAR_BUILD` says which build is meant, so that no run is green by the other one."""
    meant = os.environ.get("SIDECAR_BUILD", BUILD)
    if meant != BUILD:
        raise pytest.UsageError(f"SIDECAR_BUILD={meant}, but this is the {BUILD} build: {contract.__file__}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if IS_COMPILED:
        skip = pytest.mark.skip(reason="replaces what compiled modules do not look up")
        for item in items:
            if item.get_closest_marker("plain") is not None:
                item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is made meanwhile stays, so to look for garbage in it takes a sixth of the time of collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Each full collection of garbage would look through all that 17,000 tests consist of."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown() -> None:
    """What a test holds back is held back from every process that later tests start, and they wait for ever for
    those to end: the test that did it is told, and no other."""
    held = signal.pthread_sigmask(signal.SIG_SETMASK, _HELD_BEFORE) - _HELD_BEFORE
    assert not held, f"signals are still held back: {held}"


_HELD_BEFORE = signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""By whoever started the tests."""


def _heed_interrupts() -> None:
    """A shell without job control has what it starts in the background ignore SIGINT, and so do all processes that
    tests start, which wait to be interrupted."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _keep_bytecode() -> None:
    """Whatever the environment says: else each of hundreds of processes compiles the whole program anew, and each
    worker all the tests."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


_heed_interrupts()
_keep_bytecode()
