"""The part of the story that is gRPC's: a deadline, a cancellation and a refusal, as clients and servers see them."""

from __future__ import annotations

import asyncio
from typing import Final

from sidecar.demo.scenes import Scene
from sidecar.demo.stage import Stage
from sidecar.demo.story import AFTER_SECONDS, AT_ONCE_MS, claim_all_ended, entry

ROUTE: Final = "payments-to-ledger"


async def left(stage: Stage) -> None:
    """A client of HTTP closes its browser: the gRPC server, three services further down, is told."""
    assert stage.ledger is not None
    served = len(stage.ledger.served)
    call = stage.get("/entry?seconds=8", leave_after=0.6)
    answer, before = await asyncio.gather(call, stage.running_after(0.5))
    await asyncio.sleep(AFTER_SECONDS)
    stage.journal.claim(f"the client left after {answer.seconds:.2f} s of 8 s", answer.status == 0)
    claim_all_ended(stage, before, stage.ledger, served, "the client left")


async def refused(stage: Stage) -> None:
    """What a gRPC client hears of an open breaker: a status of gRPC's own, at once."""
    assert stage.ledger is not None
    assert stage.ledger_client is not None
    payments = stage.sidecars[2]
    served = len(stage.ledger.served)
    await payments.override(stage.session, ROUTE, "open")
    await stage.get("/entry", at=2)
    told = stage.ledger_client.asked[-1]
    touched = len(stage.ledger.served) - served
    stage.journal.claim(
        f"held open: payments heard {told.code} after {told.seconds * 1000:.1f} ms ({told.words}), while the ledger "
        f"saw {touched} calls",
        told.code == "UNAVAILABLE" and told.seconds * 1000 <= AT_ONCE_MS and touched == 0,
    )
    await payments.override(stage.session, ROUTE, "auto")
    await stage.get("/entry", at=2)
    told = stage.ledger_client.asked[-1]
    stage.journal.claim(f"the override has ended: {told.code}", told.code == "OK")


SCENES: Final = (
    Scene(
        "The last hop is gRPC, and a client gives 500 ms to a call of 8 s",
        "The deadline goes on as grpc-timeout; the server keeps it, and says so itself.",
        entry,
    ),
    Scene("A client of the first service leaves", "The gRPC call at the end of the row is cancelled.", left),
    Scene(
        "The breaker of the gRPC route is open",
        "Its client hears UNAVAILABLE at once, as of a server.",
        refused,
    ),
)
