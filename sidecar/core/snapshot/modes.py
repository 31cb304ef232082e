"""What several policies choose from."""

from __future__ import annotations

from enum import Enum


class Mode(Enum):
    """What a policy does with what it finds: act, only measure, or nothing."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    OFF = "off"


class CancelWithCaller(Enum):
    SAFE = "safe"
    ALL = "all"
    OFF = "off"


class Source(Enum):
    """Who says which endpoints an entry of an upstream stands for; the value is what is written before `://`."""

    ADDRESS = "address"
    """It is one itself, or a name whose addresses are."""
    SRV = "srv"
    FILE = "file"
    KUBERNETES = "kubernetes"
