"""The part that makes the health checks: its messages are the ends of checks."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.core.health import CheckVerdict
from sidecar.core.snapshot import Endpoint
from sidecar.forwarding.health import MOST_AT_ONCE, CheckEnded, Clusters, HealthChecks
from sidecar.forwarding.service import Service
from sidecar.runtime.actor import Mailbox

CAPACITY = 2 * MOST_AT_ONCE
"""All that can end at once, and as many that were called off after their end."""


class HealthChecking:
    """Runs them. A new life begins with the same knowledge of endpoints, which is not kept here."""

    def __init__(self, service: Service, clusters: Clusters) -> None:
        self.on_checked: Callable[[str, Endpoint, CheckVerdict], None] = lambda *_: None
        """Who else wants to know what a check of an upstream's endpoint has shown."""
        self._service = service
        self._clusters = clusters

    async def run(self, mailbox: Mailbox[CheckEnded]) -> None:
        clock = self._service.clock
        checks = HealthChecks(self._service, self._clusters, mailbox.put, self.on_checked)
        try:
            while True:
                now = clock()
                message = await mailbox.get(max(checks.begin_due(now) - now, 0.0))
                if message is not None:
                    checks.ended(message)
        finally:
            checks.close()
