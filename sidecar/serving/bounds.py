"""What is known of servers beside the data path before one is made, which takes aiohttp."""

from __future__ import annotations

from typing import Final

MAX_CONNECTIONS: Final = 256
"""Of one server, at most."""
