"""Signals are heard, and each of them once."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAR = """
import asyncio, os, signal, threading, time, uvloop
from sidecar.runtime.signals import hear

PAIRS = 4000
heard = {signal.SIGHUP: 0, signal.SIGTERM: 0}

def count(number):
    heard[number] += 1

def wait():
    while True:
        time.sleep(0.0001)

async def main():
    loop = asyncio.get_running_loop()
    for number in heard:
        hear(loop, number, lambda number=number: count(number))
    for _ in range(3):
        threading.Thread(target=wait, daemon=True).start()
    own = os.getpid()
    child = os.fork()
    if child == 0:
        for _ in range(PAIRS):
            os.kill(own, signal.SIGHUP)
            os.kill(own, signal.SIGTERM)
            time.sleep(0.0003)
        os._exit(0)
    while not os.waitpid(child, os.WNOHANG)[0]:
        await asyncio.sleep(0.05)
    while not all(heard.values()):
        await asyncio.sleep(0.05)
    assert all(count <= PAIRS for count in heard.values()), heard

uvloop.run(main()) if {uvloop} else asyncio.run(main())
"""


@pytest.mark.parametrize("uvloop", [True, False], ids=["uvloop", "asyncio"])
def test_a_signal_that_another_thread_took_is_heard_once(uvloop: bool) -> None:
    """Some that come together may be one; none may be two."""
    code = HEAR.replace("{uvloop}", str(uvloop))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
