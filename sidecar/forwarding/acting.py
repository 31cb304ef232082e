"""What a route does with a request beside sending it on: it is refused, answered here, or changed on its way.

In this order: the client's address, CORS, the length of the body, then a redirect or a fixed answer. What is answered
here asks no breaker and no limit of an upstream, and has no attempt, so no upstream span. Built with its `LiveRoute`
and immutable like it; a route that has none of all this has no `Acting` and pays for one look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Final

from sidecar.core.actions.cors import Cors
from sidecar.core.actions.fields import Described, FilledFields, static
from sidecar.core.actions.networks import Clients
from sidecar.core.actions.policy import RespondPolicy
from sidecar.core.actions.redirect import Redirect
from sidecar.core.actions.rewrite import with_path, with_prefix
from sidecar.core.actions.template import Value
from sidecar.core.errors import Reason
from sidecar.core.path import has_dot_segment
from sidecar.core.snapshot import HeaderOps, Rewrite, Route
from sidecar.forwarding import answers, date
from sidecar.forwarding.answers import OwnAnswer
from sidecar.forwarding.given_up import GivenUp
from sidecar.forwarding.own_fields import OwnFields

if TYPE_CHECKING:
    from sidecar.core.head import Added, Own

PREFLIGHT_STATUS: Final = 204

Acted = tuple[str, OwnAnswer]
"""What has answered (`redirect`, `respond`, `preflight`), and the answer."""


class Acting:
    """One route's."""

    __slots__ = (
        "_added", "_answer_fields", "_clients", "_cors", "_redirect", "_respond", "_sets_date", "_to_client",
        "_to_fallback", "_to_upstream", "most_body", "variants",
    )  # fmt: skip

    def __init__(self, policy: Route, added: Added, variants: Mapping[str, Any]) -> None:
        """`added`: what the route adds to each answer. `variants`: the route with what is changed for one upstream
        alone, by that upstream."""
        clients = self._clients = Clients(policy.clients)
        self._cors = None if policy.cors is None else Cors(policy.cors)
        self._redirect = None if policy.redirect is None else Redirect(policy.redirect)
        self._respond = policy.respond
        own = _without_changed(policy.respond, policy.response_headers)
        self._answer_fields = FilledFields(own, clients), b"".join(_lines(static(own)))
        self._to_fallback = FilledFields(OwnFields.of(policy).kept(_fallback_fields(policy)), clients)
        self._to_upstream = _filled(policy.request_headers, clients)
        self._to_client = _filled(policy.response_headers, clients)
        self._sets_date = any(
            name == date.KEY for name, _ in (*own, *policy.response_headers.set, *policy.response_headers.add)
        )
        self._added = added
        self.most_body = inf if policy.max_request_body_bytes is None else policy.max_request_body_bytes
        """Bytes of a request's body; beyond, it is refused."""
        self.variants = variants
        """Each a `LiveRoute`, which stands on this module."""

    # Before anything is sent

    def answer(self, exchange: Described, path: bytes, matched: int, size: int) -> Acted | None:
        """The answer that is made here; None if the request goes on.

        `matched`: bytes of `path` that the route's prefix has matched. `size`: of the body, as far as it is known.

        Raises:
            GivenUp: it is refused.
        """
        request, clients, cors = exchange.request, self._clients, self._cors
        if clients.has_rules and not clients.serves(clients.address(exchange.peer, request.lookup)):
            raise GivenUp(Reason.CLIENT_DENIED, "this route does not serve the client's address (clients)")
        if cors is not None and cors.is_preflight(request.method, request.lookup):
            return self._made(exchange, PREFLIGHT_STATUS, "preflight", _lines(cors.preflight(request.lookup)))
        self.check_body(size)
        if self._redirect is not None:
            return self._redirected(exchange, self._redirect, path, matched)
        if self._respond is not None:
            traits = request.traits
            if traits.upgrade and traits.http_version == "2" and self._respond.status < 300:
                # It would say that the tunnel is open (RFC 8441 5).
                raise GivenUp(
                    Reason.METHOD_NOT_ALLOWED, "this route answers by itself: it takes no WebSocket"
                )
            filled, plain = self._answer_fields
            lines = [plain, *_lines(filled.pairs(exchange)), *self.lines_for_client(exchange)]
            return self._made(exchange, self._respond.status, "respond", lines, self._respond.body)
        return None

    def check_body(self, size: int) -> None:
        """Raises: GivenUp, if a body of so many bytes, or one that goes on after them, is too long."""
        if size > self.most_body:
            detail = f"the request's body is longer than {self.most_body:.0f} bytes (max_request_body)"
            raise GivenUp(Reason.BODY_TOO_LARGE, detail)

    def _redirected(self, exchange: Described, redirect: Redirect, path: bytes, matched: int) -> Acted:
        if redirect.replaces_prefix and has_dot_segment(path):
            raise GivenUp(Reason.BAD_REQUEST, "a dot segment could leave the rewritten prefix")
        request = exchange.request
        location = redirect.location(
            request.origin_target, request.host, matched, is_tls=request.tls is not None
        )
        lines = [b"Location: ", location, b"\r\n", *self.lines_for_client(exchange)]
        return self._made(exchange, redirect.status, "redirect", lines)

    def _made(self, exchange: Described, status: int, what: str, lines: Own, body: bytes = b"") -> Acted:
        """Of RFC 9209's parameters there is no error to tell, so the details say what has answered."""
        own: Own = [
            b"x-request-id: ", exchange.trace.request_id, b'\r\nProxy-Status: sidecar; details="', what.encode(),
            b'"\r\n', *lines,
        ]  # fmt: skip
        if not self._sets_date:
            own.append(date.line())
        return what, answers.acted(status, own, self._added, body)

    # On its way

    def lines_for_upstream(self, exchange: Described) -> bytes:
        """Further lines of the request's head."""
        return self._to_upstream.lines(exchange)

    def lines_for_errors(self, exchange: Described) -> Own:
        """Further lines of an answer of the sidecar's own: what lets a page of another origin read it."""
        return [] if self._cors is None else _lines(self._cors.answer(exchange.request.lookup))

    def lines_for_fallback(self, exchange: Described) -> Own:
        """Further lines of the fixed response that stands in for an error."""
        return [*self.lines_for_errors(exchange), *_lines(self._to_fallback.pairs(exchange))]

    def lines_for_client(self, exchange: Described) -> Own:
        """Further lines of the head of an upstream's answer, or of one that the route makes itself."""
        lines = self.lines_for_errors(exchange)
        if self._to_client:
            lines.append(self._to_client.lines(exchange))
        return lines


def acts(policy: Route) -> bool:
    """Whether a route needs any of this."""
    ops = policy.request_headers, policy.response_headers
    values = [value for one in ops for _, value in (*one.set, *one.add)]
    values += [value for _, value in _fallback_fields(policy)]
    has_variables = any(not isinstance(value, bytes) for value in values)
    return has_variables or bool(
        policy.redirect
        or policy.respond
        or policy.cors
        or policy.clients.allow
        or policy.clients.deny
        or policy.filters
        or policy.max_request_body_bytes is not None
    )


class Rewriting:
    """What the upstream is asked for instead, for a route that says so."""

    __slots__ = ("host", "path", "prefix")

    def __init__(self, policy: Rewrite) -> None:
        self.prefix = None if policy.prefix is None else policy.prefix.encode()
        self.path = None if policy.path is None else policy.path.encode()
        self.host = b"" if policy.host is None else policy.host.encode()
        """Empty: the caller's own."""

    @property
    def changes_target(self) -> bool:
        return self.prefix is not None or self.path is not None

    def target(self, target: bytes, matched: int) -> bytes:
        """`matched`: bytes of the target that the route's prefix has matched."""
        if self.path is not None:
            return with_path(target, self.path)
        return target if self.prefix is None else with_prefix(target, self.prefix, matched)


def _filled(ops: HeaderOps, clients: Clients) -> FilledFields:
    return FilledFields((*ops.set, *ops.add), clients)


def _fallback_fields(policy: Route) -> tuple[tuple[bytes, Value], ...]:
    return () if policy.fallback is None else policy.fallback.headers


def _lines(pairs: Iterable[tuple[bytes, bytes]]) -> Own:
    return [b"%b: %b\r\n" % pair for pair in pairs]


def _without_changed(respond: RespondPolicy | None, ops: HeaderOps) -> tuple[tuple[bytes, Value], ...]:
    """The fields of a fixed answer, but for those that the route's `response_headers` remove or set."""
    changed = {*ops.remove, *(name for name, _ in ops.set)}
    return () if respond is None else tuple(pair for pair in respond.headers if pair[0] not in changed)
