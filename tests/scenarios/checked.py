"""An endpoint that is asked for its health beside its traffic, and answers as it is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.scenarios.stage import OK
from tests.support.raw import RawPeer, RawUpstream, Request


def is_check(request: Request) -> bool:
    return request.target == b"/healthz"


@dataclass(eq=False)
class CheckedApp:
    """Its answers can be set."""

    traffic: bytes = OK
    """To requests."""
    health: bytes | None = OK
    """To checks; None: nothing."""
    upstream: RawUpstream = field(default_factory=RawUpstream)

    async def serve(self, peer: RawPeer) -> None:
        while (request := await peer.request()) is not None:
            answer = self.health if is_check(request) else self.traffic
            if answer is None:
                while await peer.read_some():
                    pass
                return
            await peer.send(answer)

    def get_well(self) -> None:
        self.traffic = self.health = OK

    @property
    def port(self) -> int:
        return self.upstream.port

    @property
    def checks(self) -> list[Request]:
        return [request for request in self.upstream.requests if is_check(request)]

    @property
    def served(self) -> int:
        return len(self.upstream.requests) - len(self.checks)
