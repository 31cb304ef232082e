"""The schedule of the demo: faults, calls, and claims whose every number was measured while it played.

A scene tells nothing that it has not seen: what a service served, what a caller got, what `/events` said. Where a
breaker does not do its work the numbers say so, and the claim fails.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from sidecar.demo.ledger import Ledger
from sidecar.demo.scenes import Scene, play_all
from sidecar.demo.services import Asked, Service
from sidecar.demo.stage import Claim, Stage

THRESHOLD = 5
"""`consecutive_failures` of the template."""
OPEN_SECONDS = 2.0
"""`open_for` of the template."""
AT_ONCE_MS = 100.0
"""A refusal that takes longer than this is none: an answer takes at least so long."""
AFTER_SECONDS = 0.1
"""How long after an end nobody may be at the call any more."""
REFUSED = "circuit_open"


async def play(stage: Stage, pause_seconds: float) -> None:
    """All scenes, each followed by a pause for those who watch."""
    scenes = SCENES if stage.ledger is not None else tuple(one for one in SCENES if one.play is not entry)
    await play_these(scenes, stage, pause_seconds)


async def play_these(scenes: Sequence[Scene[Stage]], stage: Stage, pause_seconds: float) -> None:
    """The same of a part of them, or of others."""
    await play_all(scenes, stage, stage.journal, lambda: asyncio.sleep(pause_seconds))


async def healthy(stage: Stage) -> None:
    """One call through all three; the apps forward the trace alone, and the budget arrives everywhere."""
    given = 2000
    answer = await stage.get("/fast", timeout_ms=given)
    calls = [service.served[-1] for service in stage.services]
    budgets = [call.budget_ms or 0 for call in calls]
    told = stage.by_name(budgets)
    is_falling = given >= budgets[0] > budgets[1] > budgets[2] > 0
    stage.journal.claim(
        f"of {given} ms the client gave, each hop had less left (ms): {told}",
        is_falling and answer.status == 200,
    )
    ids = {(call.request_id, call.user_id, call.trace_id) for call in calls}
    told = "; ".join(f"request {request}, {user}, trace {trace}" for request, user, trace in sorted(ids))
    stage.journal.claim(
        f"{len(calls)} services logged the same ids: {told}",
        len(ids) == 1 and all(all(one.strip("-0") for one in three) for three in ids),
    )


async def errors(stage: Stage) -> None:
    """30 % errors are not enough for the breaker to open."""
    stage.payments.faults.set(has_errors=True)
    before = len(stage.journal.changes)
    asked = [one for _ in range(4) for one in await stage.orders_asks(5)]
    stage.payments.faults.set()
    failed = sum(one.status == 500 for one in asked)
    state = (await stage.breaker())["state"]
    stage.journal.claim(
        f"{failed} of {len(asked)} calls failed ({failed / len(asked):.0%}, threshold 50%): "
        f"the breaker is {state}, after {len(stage.journal.changes) - before} transitions",
        failed > 0 and state == "closed" and len(stage.journal.changes) == before,
    )


async def dead(stage: Stage) -> None:
    """Payments dies and comes back: the breaker opens, refuses, probes and closes."""
    before = len(stage.journal.changes)
    await stage.payments.stop()
    stage.journal.note("payments is dead")
    failures = await _until_refused(stage)
    opened = await stage.change(before, "open")
    reason = "never" if opened is None else opened.reason
    stage.journal.claim(
        f"the breaker opened after {failures} failures in a row (threshold {THRESHOLD}; reason: {reason})",
        opened is not None and failures == THRESHOLD and reason == "consecutive_failures",
    )
    await stage.payments.start()
    stage.journal.note("payments is back, and nobody knows yet")
    await _is_spared(stage)
    await stage.may_probe()
    await _is_probed(stage)
    closed = await stage.change(before, "closed")
    took = closed.at - opened.at if opened is not None and closed is not None else None
    stage.journal.claim(
        f"closed again {'never' if took is None else f'{took:.2f} s'} after it opened (open_for {OPEN_SECONDS} s)",
        took is not None and OPEN_SECONDS * 0.9 <= took <= OPEN_SECONDS + 2.0,
    )
    path = [change.to_state for change in stage.journal.changes[before:]]
    stage.journal.claim(
        f"its way: closed → {' → '.join(path) or 'closed'}", path == ["open", "half_open", "closed"]
    )


async def _until_refused(stage: Stage) -> int:
    """Calls that failed at the upstream before one was refused, or before patience ended."""
    for failures in range(THRESHOLD * 3):
        (asked,) = await stage.orders_asks(1)
        stage.journal.note(f"orders asked payments: {asked.status} {asked.reason}")
        if asked.reason == REFUSED:
            return failures
    return THRESHOLD * 3


async def _is_spared(stage: Stage) -> None:
    """While it is open, callers are answered at once and the upstream is not touched."""
    served = len(stage.payments.served)
    asked = [one for _ in range(4) for one in await stage.orders_asks(5)]
    refused = [one for one in asked if one.reason == REFUSED]
    touched = len(stage.payments.served) - served
    stage.journal.claim(
        f"{len(refused)} of {len(asked)} calls refused in {_milliseconds(refused)}, "
        f"while payments saw {touched} calls",
        len(refused) == len(asked) and touched == 0 and _median_ms(refused) <= AT_ONCE_MS,
    )


async def _is_probed(stage: Stage) -> None:
    """Once the wait is over, one call of many tries the upstream."""
    served = len(stage.payments.served)
    asked = await stage.orders_asks(10)
    probes = len(stage.payments.served) - served
    refused = sum(one.reason == REFUSED for one in asked)
    good = sum(one.status == 200 for one in asked)
    stage.journal.claim(
        f"half-open: of {len(asked)} calls at once payments saw {probes} (the probe); {refused} were refused",
        probes == 1 and good == 1 and refused == len(asked) - 1,
    )


async def latency(stage: Stage) -> None:
    """Nothing fails, but everything is slow: that opens it too."""
    before = len(stage.journal.changes)
    stage.payments.faults.set(latency_seconds=0.5)
    asked = await stage.orders_asks(12)
    stage.payments.faults.set()
    opened = await stage.change(before, "open")
    reason = "never" if opened is None else opened.reason
    good = sum(one.status == 200 for one in asked)
    stage.journal.claim(
        f"{good} of {len(asked)} calls were good but took {_milliseconds(asked)}: opened, reason: {reason}",
        reason == "slow_call_rate" and good == len(asked),
    )
    await stage.may_probe()
    await stage.orders_asks(1)
    closed = await stage.change(before, "closed")
    took = closed.at - opened.at if opened is not None and closed is not None else None
    stage.journal.claim(
        f"fast again: closed {'never' if took is None else f'{took:.2f} s'} after it opened", took is not None
    )


async def deadline(stage: Stage) -> None:
    """The answer is in time even if the work is not, and the work ends with it."""
    served = len(stage.payments.served)
    call = stage.get("/slow?seconds=8", timeout_ms=500)
    answer, before = await asyncio.gather(call, stage.running_after(0.3))
    await asyncio.sleep(AFTER_SECONDS)
    stage.journal.claim(
        f"{answer.status} after {answer.seconds * 1000:.0f} ms of 500 ms, for a call of 8 s",
        answer.status == 504 and 0.4 <= answer.seconds <= 0.6,
    )
    claim_all_ended(stage, before, stage.payments, served, "the answer came")


async def batch(stage: Stage) -> None:
    """A service that reads its budget hands in what it has."""
    answer = await stage.get("/batch?size=20&timeout=1.5s")
    budget = stage.payments.served[-1].budget_ms
    done, of = answer.data.get("done", 0), answer.data.get("of", 0)
    stage.journal.claim(
        f"?timeout=1.5s: {answer.status} after {answer.seconds:.2f} s with {done} of {of} steps; "
        f"payments knew of {budget} ms",
        answer.status == 200 and 0 < done < of and answer.seconds <= 1.5 and budget is not None,
    )


async def leaving(stage: Stage) -> None:
    """A client closes its browser: nobody works on for it, two apps further down."""
    served = len(stage.payments.served)
    call = stage.get("/slow?seconds=8", leave_after=0.5)
    answer, before = await asyncio.gather(call, stage.running_after(0.4))
    stage.journal.note(f"the client left after {answer.seconds:.2f} s")
    await asyncio.sleep(AFTER_SECONDS)
    stage.journal.claim(f"the client left after {answer.seconds:.2f} s of 8 s", answer.status == 0)
    claim_all_ended(stage, before, stage.payments, served, "the client left")


async def entry(stage: Stage) -> None:
    """The last hop is a gRPC call: its deadline is `grpc-timeout`, and its server keeps it."""
    assert stage.ledger is not None
    assert stage.ledger_client is not None
    given = 2000
    answer = await stage.get("/entry", timeout_ms=given)
    budgets = [one.served[-1].budget_ms or 0 for one in stage.row]
    stage.journal.claim(
        f"of {given} ms the client gave, each hop had less left (ms): {stage.by_name(budgets)}, "
        "which the last one knows by grpc-timeout",
        answer.status == 200 and all(above > below > 0 for above, below in pairwise([given + 1, *budgets])),
    )
    served = len(stage.ledger.served)
    call = stage.get("/entry?seconds=8", timeout_ms=500)
    answer, before = await asyncio.gather(call, stage.running_after(0.3))
    told = stage.ledger_client.asked[-1]
    await asyncio.sleep(AFTER_SECONDS)
    stage.journal.claim(
        f"{answer.status} after {answer.seconds * 1000:.0f} ms of 500 ms; payments heard {told.code} of the ledger "
        f"after {told.seconds * 1000:.0f} ms: {told.words}",
        answer.status == 504 and 0.35 <= answer.seconds <= 0.6 and told.code == "DEADLINE_EXCEEDED",
    )
    claim_all_ended(stage, before, stage.ledger, served, "the answer came")


def claim_all_ended(
    stage: Stage, before: Sequence[int], last: Service | Ledger, served: int, end: str
) -> None:
    """`last`: the service that did the work. `served`: how many calls it had seen before; `before`: how many calls
    each service was at while it worked."""
    depth = stage.row.index(last) + 1
    was_cancelled = [call.status for call in last.served[served:]] == [499]
    before, after = before[:depth], stage.running[:depth]
    stage.journal.claim(
        f"the tree of calls: {stage.by_name(before)}; {AFTER_SECONDS * 1000:.0f} ms after {end}: "
        f"{stage.by_name(after)}; {last.name} was {'cancelled' if was_cancelled else 'not cancelled'}",
        all(count == 1 for count in before) and not any(after) and was_cancelled,
    )


def _milliseconds(asked: Sequence[Asked]) -> str:
    if not asked:
        return "- ms"
    return f"{_median_ms(asked):.1f} ms (median; at most {max(one.seconds for one in asked) * 1000:.1f} ms)"


def _median_ms(asked: Sequence[Asked]) -> float:
    return median(one.seconds for one in asked) * 1000


def summary(claims: Sequence[Claim], started: float) -> tuple[list[str], bool]:
    """The lines of the end, and whether every claim holds."""
    lines = [f"{'ok  ' if claim.holds else 'FAIL'} {claim.text}" for claim in claims]
    held = sum(claim.holds for claim in claims)
    lines.append(f"{held} of {len(claims)} claims hold, after {time.monotonic() - started:.1f} s")
    return lines, held == len(claims) > 0


SCENES = (
    Scene(
        "All is well: one call through three services, with 2 s to live",
        "Apps forward their trace alone; each hop is given what is left.",
        healthy,
    ),
    Scene(
        "30 % of payments' answers are errors",
        "Below the threshold of 50 %: the breaker stays closed.",
        errors,
    ),
    Scene(
        "payments dies",
        "Five failures open the breaker; it refuses at once, sends one probe, and closes.",
        dead,
    ),
    Scene(
        "payments takes 500 ms more",
        "Nothing fails, but slow calls open the breaker too.",
        latency,
    ),
    Scene(
        "A client gives 500 ms to a call of 8 s",
        "It is answered in time, and the work below ends with it.",
        deadline,
    ),
    Scene(
        "A batch with too little time",
        "A service that reads its budget hands in what it has.",
        batch,
    ),
    Scene(
        "A client leaves",
        "The whole tree of calls below it is cancelled.",
        leaving,
    ),
    Scene(
        "The last hop is gRPC, and a client gives 500 ms to a call of 8 s",
        "The deadline goes on as grpc-timeout; the server keeps it, and says so itself.",
        entry,
    ),
)
