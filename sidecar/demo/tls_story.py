"""The part of the story that is TLS's: who calls whom, and who is not let in."""

from __future__ import annotations

import ssl
from typing import Final

from aiohttp import ClientError

from sidecar.demo.scenes import Scene
from sidecar.demo.secured import CLIENT, DOMAIN
from sidecar.demo.stage import Stage
from sidecar.demo.story import deadline, healthy, leaving


async def known(stage: Stage) -> None:
    """Each app is told who called, by the certificate that the caller's sidecar has shown."""
    answer = await stage.get("/fast")
    callers = [service.served[-1].client for service in stage.services]
    expected = [f"{DOMAIN}/{name}" for name in (CLIENT, *(service.name for service in stage.services[:-1]))]
    told = " → ".join(
        f"{one.name} by {who or 'nobody'}" for one, who in zip(stage.services, callers, strict=True)
    )
    stage.journal.claim(f"who was called by whom: {told}", answer.status == 200 and callers == expected)


async def stranger(stage: Stage) -> None:
    """Without a certificate of this CA no request gets through."""
    assert stage.secured is not None
    served = len(stage.payments.served)
    came, reason = False, ""
    try:
        await stage.get("/fast", at=2, context=stage.secured.context(has_certificate=False))
        came = True
    except (ClientError, OSError, ssl.SSLError) as error:
        reason = str(error).strip() or type(error).__name__
    touched = len(stage.payments.served) - served
    stage.journal.claim(
        f"a client without a certificate is {'served' if came else 'not let in'} ({reason:.60}); payments saw "
        f"{touched} calls",
        not came and touched == 0,
    )


SCENES: Final = (
    Scene(
        "All is well, and every hop is encrypted", "Deadlines and traces go through TLS as without.", healthy
    ),
    Scene("Who calls whom", "Sidecars show certificates to each other, and tell the app who called.", known),
    Scene("A stranger calls", "Who shows no certificate is not let in.", stranger),
    Scene(
        "A client gives 500 ms to a call of 8 s", "The work below ends with it, through TLS too.", deadline
    ),
    Scene("A client leaves", "The whole tree of calls below it is cancelled.", leaving),
)
