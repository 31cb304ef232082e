"""Decides at entry whether an exchange is sampled, with the semantics of the SDK's samplers.

The data path calls `Decide` once for each exchange, so it is a plain function: about 0.1 µs for a parent's
flag, 0.3 µs for a ratio.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.telemetry.settings import Settings

Decide = Callable[[bool | None, bytes], bool]
"""(the parent's sampled flag, or None for a trace that starts here; the trace id in hex) -> is sampled."""


def make_decide(settings: Settings) -> Decide:
    """Build the decision that `settings` ask for. A disabled SDK passes a parent's flag on and starts
    nothing."""
    if settings.is_disabled:
        return _parent_or(_never)
    if settings.sampler == "parentbased_traceidratio" and 0.0 < settings.sample_ratio < 1.0:
        return _parent_or_ratio(_bound(settings.sample_ratio))
    root = _ratio(settings.sample_ratio) if settings.sampler.endswith("traceidratio") else _always
    if settings.sampler.endswith("always_off"):
        root = _never
    return _parent_or(root) if settings.sampler.startswith("parentbased_") else root


def _always(_parent: bool | None, _trace_id: bytes) -> bool:
    return True


def _never(_parent: bool | None, _trace_id: bytes) -> bool:
    return False


def _ratio(ratio: float) -> Decide:
    """The SDK's TraceIdRatioBased: the low 64 bits of the trace id, so that all hops decide alike."""
    if ratio >= 1.0:
        return _always
    if ratio <= 0.0:
        return _never
    bound = _bound(ratio)

    def decide(_parent: bool | None, trace_id: bytes) -> bool:
        return trace_id[16:] < bound

    return decide


def _bound(ratio: float) -> bytes:
    """The first low half of a trace id that is not kept: 16 lower-case digits sort as the numbers they are."""
    bound = round(ratio * (1 << 64))
    return b"%016x" % bound if bound < 1 << 64 else b"g"


def _parent_or_ratio(bound: bytes) -> Decide:
    """The default, in one call for each exchange instead of two."""

    def decide(parent: bool | None, trace_id: bytes) -> bool:
        return trace_id[16:] < bound if parent is None else parent

    return decide


def _parent_or(root: Decide) -> Decide:
    def decide(parent: bool | None, trace_id: bytes) -> bool:
        return root(None, trace_id) if parent is None else parent

    return decide
