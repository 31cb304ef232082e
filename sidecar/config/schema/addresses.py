"""Where the servers of a file listen that says nothing of it."""

from __future__ import annotations

from sidecar.core.snapshot import Address, Direction

LISTENER_ADDRESSES = {"inbound": Address("0.0.0.0", 15006), "outbound": Address("127.0.0.1", 15001)}
"""The listeners of a file without `listeners`, and where these two names listen without an `address`."""
LISTENER_DIRECTIONS = {direction.value: direction for direction in Direction}
"""The names that say whose calls a listener takes; every other one needs a `direction`."""
ADMIN_ADDRESS = Address("127.0.0.1", 15000)
PROBES_ADDRESS = Address("0.0.0.0", 15021)
