"""Why a replica goes on alone: each cause is a fixed word for metrics and a sentence for people."""

from __future__ import annotations

from enum import Enum


class Lack(Enum):
    """`reason` of `sidecar.fleet.alone`."""

    STARTING = "starting"
    """Nothing has been tried yet."""
    NOT_INSTALLED = "not_installed"
    TLS = "tls"
    """A certificate or its files."""
    PASSWORD = "password"
    """The file cannot be read, or the Redis does not take what is in it."""
    UNREACHABLE = "unreachable"
    """No connection, or it broke."""
    SLOW = "slow"
    """No answer in time."""
    REFUSED = "refused"
    """It answers with an error: no permission, no memory, a replica that takes no writes."""
    ENDED = "ended"
    """The process ends, or the configuration has no fleet any more."""


class StoreFailed(Exception):
    """The Redis did not do what it was asked for."""

    def __init__(self, lack: Lack, told: str) -> None:
        super().__init__(told)
        self.lack = lack
