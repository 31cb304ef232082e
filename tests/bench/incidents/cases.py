"""The incidents: how each is provoked, and what leads from its row in deploy/INCIDENTS.md to its cause."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.bench.incidents.place import Place

Provoke = Callable[[Place], Awaitable[object]]

_LOG = """grep -v '"kind":"access"' log"""
"""The second command of the first minute."""
_WENT_WRONG = 'grep -E \'"level":"(warning|error)"\' log | tail -3'
"""The third."""
_URL = "http://127.0.0.1:{inbound}"


@dataclass(frozen=True, slots=True)
class Incident:
    """One thing that is wrong."""

    row: str
    """Of deploy/INCIDENTS.md: what the person on call was told, an alert, a reason or a kind of log line."""
    wrong: str
    """What is wrong, which that person does not know."""
    rest: str
    """Of the configuration, after its head."""
    provoke: Provoke
    steps: tuple[str, ...]
    """Commands of the row, at most three."""
    cause: tuple[str, ...]
    """Texts that these must have shown, all of them: whoever reads them knows what is wrong. Braces as in `steps`."""
    listener: str = ""
    """Further keys of the listener."""


def asking(path: str, *fields: str, times: int = 1) -> Provoke:
    """Requests, one after the other."""

    async def provoke(place: Place) -> None:
        await place.ask(path, *fields, times=times)

    return provoke


def shop(upstream: str = "", route: str = "", port: str = "service") -> str:
    """One route to one endpoint."""
    return f"""\
upstreams: {{{{shop: {{{{endpoints: ["127.0.0.1:{{{port}}}"]{upstream}}}}}}}}}
routes: [{{{{name: shop, upstream: shop{route}}}}}]
"""


async def nothing(_: Place) -> None:
    """It is wrong from the start."""


async def held_by_hand(place: Place) -> None:
    await place.shell("sidecar breaker close shop --for ever --by ada@bastion")


async def misspelt(place: Place) -> None:
    place.file.write_text(place.file.read_text().replace("upstream: shop}", "upstrem: shop}"))
    await place.running.logged('"kind":"config.reload"')


async def two_at_once(place: Place) -> None:
    first = await place.begin("/hang")
    await place.ask("/")
    first.cancel()
    await asyncio.wait([first])


async def anothers_key(place: Place) -> None:
    place.certificates.pair("other", "other")
    await place.shell("cp other.key shop.key")
    await place.running.logged("tls.refused")


async def no_collector(place: Place) -> None:
    await place.ask("/", times=3)
    await place.running.logged("telemetry.export")


_TLS = ', tls: {{certificate: {{chain: "{folder}/shop.crt", key: "{folder}/shop.key"}}}}'

INCIDENTS = (
    Incident(
        "SidecarCircuitBreakerOpen", "the service is down",
        shop(route=", circuit_breaker: {{warm_up: off}}", port="nobody"), asking("/", times=6),
        ("sidecar status",), ("connection_refused 127.0.0.1:{nobody}",),
    ),
    Incident(
        "SidecarErrorRatioHigh", "the service answers 503 by itself",
        shop(), asking("/ill", times=4),
        (_WENT_WRONG,), ('"status":503,"reason":null', '"endpoint":"127.0.0.1:{service}"'),
    ),
    Incident(
        "SidecarDeadlineRejections", "the caller gives no time",
        shop(), asking("/", "x-request-timeout-ms: 0"),
        (_WENT_WRONG,), ('"budget_source":"header"', '"budget_ms":0'),
    ),
    Incident(
        "SidecarOverrideForgotten", "somebody has held the breaker",
        shop(), held_by_hand, ("sidecar status",), ("by ada@bastion since",),
    ),
    Incident(
        "SidecarReloadFailed", "a key is misspelt",
        shop(), misspelt, ("sidecar status", _LOG), ("did you mean 'upstream'?",),
    ),
    Incident(
        "SidecarCertificateRefused", "the key is another certificate's",
        shop(), anothers_key, (_LOG,), ("shop.key: the key is not that of the certificate",), listener=_TLS,
    ),
    Incident(
        "SidecarCertificateExpiring", "the certificate ends in three days, and nobody renews it",
        shop(), nothing, ("sidecar status",), ("shop.crt",), listener=_TLS,
    ),
    Incident(
        "SidecarTelemetryDropped", "no collector listens where the file says",
        'telemetry: {{otlp: {{endpoint: "http://127.0.0.1:{nobody}", protocol: http/protobuf}},'
        " traces: {{sample_ratio: 1}}}}\n" + shop(),
        no_collector, (_WENT_WRONG,), ("telemetry.export", "{nobody}", "onnection refused"),
    ),
    Incident(
        "timeout", "the service hangs",
        shop(route=", timeouts: {{request: 300ms}}"), asking("/hang"),
        (_WENT_WRONG, f"sidecar explain sidecar.yaml --listener inbound {_URL}/hang"),
        ("no whole answer within 0.3 s", "timeouts.request: 300ms → 300 ms   (route, sidecar.yaml:7:50)"),
    ),
    Incident(
        "no_route", "the route wants another host",
        shop(route=", match: {{hosts: [shop.example]}}"), asking("/"),
        (f"sidecar explain sidecar.yaml --listener inbound {_URL}/",), ("host 127.0.0.1 is none of shop.example",),
    ),
    Incident(
        "overloaded", "the upstream may have one request, and that one hangs",
        shop(", limits: {{max_requests: 1}}"), two_at_once,
        (_WENT_WRONG,), ("shop: max_requests reached",),
    ),
    Incident(
        "protocol_error", "the port is that of SSH",
        shop(port="ssh"), asking("/"), (_WENT_WRONG,),
        ("malformed response", '"endpoint":"127.0.0.1:{ssh}"'),
    ),
    Incident(
        "head_too_large", "a cookie has grown",
        shop(), asking("/", "Cookie: a=" + "x" * 70_000), (_WENT_WRONG,), ("the head is larger than 65536 bytes",),
    ),
    Incident(
        "dns_error", "the name of the upstream is misspelt",
        'upstreams: {{shop: {{endpoints: ["shop.invalid:80"]}}}}\nroutes: [{{name: shop, upstream: shop}}]\n',
        asking("/"), (_LOG,), ("host shop.invalid: ",),
    ),
)  # fmt: skip
