"""An address of this machine that is not loopback: what a pod has, and what callers may name."""

from __future__ import annotations

import socket
from functools import cache

import pytest


@cache
def own_address() -> str:
    """Of IPv4; the test is skipped where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("198.51.100.1", 9))  # sends nothing (udp(7))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address: str = sock.getsockname()[0]
        return address
