"""What a client of HTTP/2 begins with. A module of its own, as every listener looks for it, and most need no more of
this room: it is imported when a client has begun so (`downstream/http2_connection.py`)."""

from __future__ import annotations

from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""RFC 9113 3.4. `receive` of a server wants to see it too."""
