"""Finds out whether the environment would send exports to a proxy on this very host, which may be this sidecar.

A pod whose apps are to use the sidecar may have `http_proxy` in every container, in the sidecar's too: each export
would come in at its own outbound listener, and beget another one. Nobody is asked here, so no name server can hold up
the start: of names only those count that this host has for itself.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")
"""In lower case, as gRPC and requests read them; upper case counts as well."""


def proxies_here(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that name a proxy on this host, with its host and port, free of secrets."""
    found = {}
    for variable in (*VARIABLES, *map(str.upper, VARIABLES)):
        value = environ.get(variable, "").strip()
        where = _host_and_port(value) if value else None
        if where is not None and _is_here(where[0]):
            host, port = where
            found[variable] = host if port is None else f"{host}:{port}"
    return found


def _host_and_port(value: str) -> tuple[str, int | None] | None:
    """None for what is no URL of a host."""
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        return (parts.hostname, parts.port) if parts.hostname else None
    except ValueError:
        return None


def _is_here(host: str) -> bool:
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost") or host == socket.gethostname().lower():
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))  # only an address of one's own can be bound
    except OSError:
        return False
    return True
