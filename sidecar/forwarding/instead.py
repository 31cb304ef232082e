"""What a client gets where its upstream brings no whole answer: the fallback's, a fixed one, or an error of the
sidecar's own. Decisions alone; the exchange acts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.core.actions.fields import static
from sidecar.core.deadline import MIN_SEND_SECONDS
from sidecar.core.errors import Reason
from sidecar.core.grpc_status import is_grpc
from sidecar.core.retry import REPEATABLE
from sidecar.forwarding import answers, date
from sidecar.forwarding.own_fields import UNCHANGED

if TYPE_CHECKING:
    from sidecar.core.snapshot import FallbackPolicy
    from sidecar.forwarding.answers import OwnAnswer
    from sidecar.forwarding.given_up import GivenUp
    from sidecar.forwarding.live import LiveRoute
    from sidecar.forwarding.story import Story

FALLBACK_FOR: Final = frozenset({
    Reason.CIRCUIT_OPEN, Reason.OVERLOADED, Reason.TIMEOUT, Reason.CONNECTION_TIMEOUT,
    Reason.CONNECTION_REFUSED, Reason.DNS_ERROR, Reason.CONNECTION_RESET, Reason.INCOMPLETE_RESPONSE,
    Reason.PROTOCOL_ERROR, Reason.TLS_CERTIFICATE, Reason.TLS_PROTOCOL, Reason.TLS_ALERT,
})  # fmt: skip
"""What a fallback may stand in for, as long as no head was sent."""

NOT_SENT: Final = frozenset({
    Reason.CIRCUIT_OPEN, Reason.OVERLOADED, Reason.CONNECTION_TIMEOUT, Reason.CONNECTION_REFUSED, Reason.DNS_ERROR,
    Reason.TLS_CERTIFICATE,
})  # fmt: skip
"""After these the request has certainly reached nobody."""


def has_fallback(story: Story, route: LiveRoute, error: GivenUp) -> bool:
    """Whether the route has one for this request and this error. A gRPC client reads nothing but gRPC: a fixed
    response of another type would be UNKNOWN to it, where our own error is a status that it can act on. And to a
    WebSocket of HTTP/2 each 2xx says that it is open (RFC 8441 5)."""
    fallback, traits = route.policy.fallback, story.request.traits
    if fallback is None or error.reason not in FALLBACK_FOR:
        return False
    if fallback.upstream is not None:
        return True
    if traits.upgrade and traits.http_version == "2":
        return fallback.status >= 300
    return not traits.is_grpc or _speaks_grpc(fallback)


def _speaks_grpc(fallback: FallbackPolicy) -> bool:
    return any(name.lower() == b"content-type" and is_grpc(value) for name, value in static(fallback.headers))


def may_ask_fallback(story: Story, error: GivenUp) -> bool:
    """Whether the request may go to the fallback's upstream after `error`: only with time and the whole body left,
    and nothing that may have been acted on (RFC 9110 9.2.2)."""
    if error.reason not in NOT_SENT and story.request.method not in REPEATABLE:
        return False
    if error.is_own_lack:
        return False
    has_time = story.deadline - story.service.clock() >= MIN_SEND_SECONDS
    return has_time and (story.body is None or story.body.is_untouched)


def is_told(second: GivenUp, *, is_head_sent: bool) -> bool:
    """The fallback's upstream failed as well: whether the exchange ended by that. Else the client hears of the first
    failure."""
    return is_head_sent or second.reason in (Reason.CLIENT_GONE, Reason.CALLER_GONE)


def answer_to(
    story: Story, route: LiveRoute | None, error: GivenUp, fallback: FallbackPolicy | None
) -> OwnAnswer:
    """The answer of the sidecar's own: a fixed one where there is a `fallback`, else what `error` is in HTTP."""
    fields = UNCHANGED if route is None else route.instead.fields
    answer = answers.answer(
        error.reason,
        error.detail,
        request_id=story.trace.request_id,
        date_line=date.line(),
        route=story.route_name,
        is_stranger=story.trace.untrusted is not None,
        retry_after_seconds=error.retry_after_seconds,
        is_grpc=story.request.traits.is_grpc,
        fallback=fallback,
        fields=fields,
    )
    if route is not None and route.acting is not None:
        acting, own = route.acting, answer.head.own
        own += acting.lines_for_errors(story) if fallback is None else acting.lines_for_fallback(story)
        own.append(fields.lines(story))
    return answer
