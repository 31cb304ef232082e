"""Packets that are dropped, for tests: commands in a network namespace of their own, where iptables may do it."""

from __future__ import annotations

import asyncio
import os
import shutil
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

NEEDED = ("unshare", "ip", "iptables")


async def in_namespace(*words: str | Path) -> tuple[int, str, str]:
    """Run a command in a network namespace of its own: exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        "unshare", "--net", *map(str, words), stdout=PIPE, stderr=PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def skip_without_namespaces() -> None:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() or missing:
        pytest.skip(f"packets are dropped in a network namespace, which takes root and {', '.join(NEEDED)}")
    code, _, errors = await in_namespace("iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP")
    if code:
        pytest.skip(f"no packets can be dropped in a network namespace here: {errors.strip()}")
