"""A listener as the file writes it."""

from __future__ import annotations

from dataclasses import replace

from sidecar.config.schema import values
from sidecar.config.schema.addresses import ADMIN_ADDRESS, LISTENER_ADDRESSES, LISTENER_DIRECTIONS
from sidecar.config.schema.form import Form
from sidecar.config.schema.section import Section, key
from sidecar.config.schema.tls import ListenerTlsSection
from sidecar.core import snapshot as core

_PORTS = Form(frozenset, sorted)


class ListenerLimitsSection(Section):
    built_in = core.ListenerLimits()

    connections: values.Count | None = key(
        "Client connections at once; the next one is answered 503 and counted.", fills="connections"
    )
    head: values.Size | None = key(
        "Request line and header fields of one request; 431 beyond.", fills="head_bytes"
    )
    headers: values.Count | None = key("Header fields of one request; 431 beyond.", fills="headers")
    url: values.Size | None = key("Request target; 414 beyond.", fills="url_bytes")
    parameters: values.Count | None = key(
        "Parameters of a query, parted by `&` or `;`; 431 beyond.", fills="parameters"
    )
    cookies: values.Count | None = key(
        "Cookies of one request, in all its `Cookie` fields; 431 beyond.", fills="cookies"
    )
    connection_options: values.Count | None = key(
        "Options of one request's `Connection` fields, which name what ends at this hop; 431 beyond.",
        fills="connection_options",
    )


class ListenerTimeoutsSection(Section):
    built_in = core.ListenerTimeouts()

    head: values.Duration | None = key(
        "From a request's first byte to the end of its head; the connection is closed beyond.",
        fills="head_seconds",
    )
    idle: values.Duration | None = key(
        "Between two requests on one connection; it is closed beyond.", fills="idle_seconds"
    )
    body: values.Duration | None = key(
        "Without progress while a body is read from, or an answer written to, the client; closed beyond.",
        fills="body_seconds",
    )
    handshake: values.Duration | None = key(
        "From the connection to the end of its TLS handshake; it is closed beyond.",
        fills="handshake_seconds",
    )


class ListenerSection(Section):
    built_in = core.Listener("", ADMIN_ADDRESS)

    address: values.ListenAddress | None = key(
        "Where it listens. `inbound` and `outbound` have one built in "
        f"({LISTENER_ADDRESSES['inbound']} and {LISTENER_ADDRESSES['outbound']}); other names need one.",
        fills="address",
        is_derived=True,
    )
    limits: ListenerLimitsSection | None = key("What one client may cost.", fills="limits")
    timeouts: ListenerTimeoutsSection | None = key("How long a client may take.", fills="timeouts")
    trust: values.TrustName | None = key(
        "Whether callers are believed: `all` or `none`, which suits a listener that strangers reach. With `none` "
        "each trace starts anew, with a link to the caller's; its sampled flag, `tracestate`, `baggage` and "
        "`x-request-id` are kept as attributes and told to nobody; `x-envoy-*`, `x-sidecar-*` and `Proxy-Status` are "
        "dropped; other timeout fields only shorten their own request; answers of our own name no address, breaker "
        "or route.",
        fills="trust",
    )
    protocol: values.HttpVersionName | None = key(
        "What clients speak: `auto`, whichever they begin with, `http1`, or `http2` by prior knowledge.",
        fills="protocol",
    )
    balance: values.DealtName | None = key(
        "With several workers, who decides which of them serves a connection: `kernel`, at random as it were, which "
        "suits many connections; or `exact`, for few that live long, as of gRPC: each is accepted in one place and "
        "handed to the worker that has fewest.",
        fills="balance",
    )
    max_connection_age: values.DurationOrOff | None = key(
        "How old a client's connection may become, give or take a tenth: then its next answer says so (`Connection: "
        "close`, or GOAWAY), so that clients connect again, to any of the workers and replicas. Tunnels go on. "
        "`off`: as old as it likes.",
        fills="max_connection_age_seconds",
    )
    direction: values.DirectionName | None = key(
        "Whose calls it takes: `inbound`, those to this pod's app, or `outbound`, those of the app to others. An "
        "outbound call keeps to the deadline of the inbound one that caused it, and ends with it. The names "
        "`inbound` and `outbound` say it themselves; every other name needs one.",
        fills="direction",
        is_derived=True,
    )
    forwarded: values.ForwardedName | None = key(
        "What upstreams are told of the client in `Forwarded` and `X-Forwarded-For`, `-Proto` and `-Host`: `set` "
        "replaces what came, `append` adds to it, `keep` passes it on as it came, `off` drops it. Unset: `keep` for "
        "outbound listeners; for inbound ones `append`, and `set` with `trust: none`.",
        fills="forwarded",
        is_derived=True,
    )

    tls: ListenerTlsSection | None = key(
        "Its certificates, and what it asks of its clients. Unset: clear text.", fills="tls"
    )
    ambiguous: values.AmbiguousName | None = key(
        "Where a match asks for a field or parameter that comes twice, or that servers may read otherwise: `refuse` "
        "answers 400, and drops all other fields with `_` in their names; with `first` of two parameters the first "
        "counts, and the values of a field are joined. Unset: `refuse` with `trust: none`, else `first`.",
        fills="ambiguous",
        is_derived=True,
    )

    unmatched: values.UnmatchedName | None = key(
        "What becomes of what no route names: `refuse` answers 404; with `pass_through` it goes to the host that was "
        "asked for (its `Host`, a target in absolute form, or CONNECT), under the policies of `defaults` and a "
        "breaker for each destination, as the route `pass_through`. Loopback, link-local and metadata addresses and "
        "this sidecar's own ports stay closed. Of an outbound listener: for callers in its own pod alone.",
        fills="unmatched",
    )
    pass_through_ports: list[values.Port] | None = key(
        "The ports that may be passed through to. Unset, or none given: all.",
        fills="pass_through_ports",
        form=_PORTS,
        examples=[[80, 443]],
    )

    opaque_ports: list[values.Port] | None = key(
        "Ports of destinations whose bytes are passed on without a look at them: not HTTP, and often protocols in "
        "which the server speaks first. Of what comes by CONNECT or interception.",
        fills="opaque_ports",
        form=_PORTS,
    )
    detect_timeout: values.Duration | None = key(
        "How long a client's first bytes are waited for where it is not known what it speaks (CONNECT, "
        "interception); then its destination is connected, which may speak first.",
        fills="timeouts.detect_seconds",
    )

    def address_of(self, name: str) -> core.Address | None:
        """Where a listener of this name binds; None when it needs an address and has none."""
        return self.address or LISTENER_ADDRESSES.get(name)

    def direction_of(self, name: str) -> core.Direction | None:
        """Whose calls a listener of this name takes; None when it has to say so and does not."""
        return self.direction or LISTENER_DIRECTIONS.get(name)

    def listener(self, name: str) -> core.Listener:
        """The listener of this name, which has been checked to have an address and a direction."""
        address, direction = self.address_of(name), self.direction_of(name)
        assert address is not None, "checked before"
        assert direction is not None, "checked before"
        listener = self.store(core.Listener(name, address, direction=direction))
        if self.forwarded is None:
            listener = replace(listener, forwarded=_forwarded(direction, listener.trust))
        if self.ambiguous is None and listener.trust is core.Trust.NONE:
            listener = replace(listener, ambiguous=core.Ambiguous.REFUSE)
        return listener


def _forwarded(direction: core.Direction, trust: core.Trust) -> core.Forwarded:
    """What a stranger says of whom it speaks for is not handed on; nobody stands in front of the app's own calls."""
    if direction is core.Direction.OUTBOUND:
        return core.Forwarded.KEEP
    return core.Forwarded.APPEND if trust is core.Trust.ALL else core.Forwarded.SET
