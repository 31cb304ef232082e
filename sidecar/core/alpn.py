"""The names of HTTP's versions in a TLS handshake (ALPN, RFC 7301), and which of them `protocol` offers."""

from __future__ import annotations

from typing import Final

from sidecar.core.snapshot import HttpVersion

HTTP_1: Final = "http/1.1"
HTTP_2: Final = "h2"
"""RFC 9113 3.1."""
OFFERED: Final = {
    HttpVersion.HTTP1: (HTTP_1,),
    HttpVersion.HTTP2: (HTTP_2,),
    HttpVersion.AUTO: (HTTP_2, HTTP_1),
}
"""In the order of preference."""
