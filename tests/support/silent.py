"""Observers for tests and benchmarks that look at something else, or at one thing alone."""

from __future__ import annotations

from sidecar.core.ejection.change import EndpointChange
from sidecar.core.mirrored import CopyOutcome, Mirrored
from sidecar.core.observe import Checked, Notice, ObservedExchange
from sidecar.core.transition import Transition
from sidecar.telemetry.spans import SpanRecorder


class Silent:
    """Observes nothing."""

    def finished(self, exchange: ObservedExchange) -> None: ...
    def transitioned(self, transition: Transition) -> None: ...
    def checked(self, checked: Checked) -> None: ...
    def endpoint_changed(self, change: EndpointChange) -> None: ...
    def copy_ended(self, route_name: str, upstream: str, outcome: CopyOutcome) -> None: ...
    def mirrored(self, copy: Mirrored) -> None: ...
    def noticed(self, notice: Notice, route_name: str) -> None: ...


class ForSpans(Silent):
    """Hands exchanges that have ended to a recorder of spans, as the process does."""

    def __init__(self, recorder: SpanRecorder) -> None:
        self._recorder = recorder

    def finished(self, exchange: ObservedExchange) -> None:
        self._recorder.finished(exchange)
