"""The hosts file (hosts(5)): names that need no nameserver, as Kubernetes writes them into a pod.

Read by hand. A channel of c-ares that is to look there alone has been seen to ask nameservers in a third of all
look-ups, and to fail where there are none: it reads its configuration again while it is used.
"""

from __future__ import annotations

import ipaddress
from typing import Final

PATH: Final = "/etc/hosts"
MAX_BYTES: Final = 4 * 1024 * 1024
"""Of the file; the rest is not looked at."""
_LOOPBACK: Final = ("127.0.0.1", "::1")


def look_up(name: str, path: str = PATH) -> list[str]:
    """The addresses of a name, in the order of the file; empty for one that does not stand there. For a thread.

    `localhost` and what ends in it are loopback, whatever the file says (RFC 6761 6.3).
    """
    wanted = name.lower().rstrip(".")
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        text = ""
    found = addresses_in(text, wanted)
    if not found and (wanted == "localhost" or wanted.endswith(".localhost")):
        return list(_LOOPBACK)
    return found


def addresses_in(text: str, name: str) -> list[str]:
    """Of `name`, which is in lower case and without a dot at its end."""
    found = []
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if any(name == one.lower().rstrip(".") for one in names) and _is_address(address):
            found.append(address)
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
