"""A route as the file writes it: what it matches, where it sends, and its policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from sidecar.config.schema import hidden_values, readers, values
from sidecar.config.schema.actions import Redirect, Respond
from sidecar.config.schema.form import METHODS, Form, Hidden, flow
from sidecar.config.schema.policies import Policies, RequestHeaders, ResponseHeaders
from sidecar.config.schema.regex import MAX_STEPS
from sidecar.config.schema.section import Section, key, required
from sidecar.config.schema.upstreams import upstream_name
from sidecar.config.schema.values import OrShorthand
from sidecar.core import snapshot as core

DEFAULT_LISTENER = "inbound"
"""Of a route that names none."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


def weight_alone(value: object) -> object:
    """The short form of a share: its weight."""
    return value if isinstance(value, dict) else {"weight": value}


def exact(value: object) -> object:
    """The short form of a value's condition: the text itself."""
    return value if isinstance(value, dict) else {"exact": readers.text(value)}


class PathCondition(Section):
    """Exactly one of the three."""

    exact: values.Path | None = key("The whole path.", examples=["/healthz"])
    prefix: values.PathPrefix | None = key(
        "Whole segments: /v1 matches /v1 and /v1/a, not /v10.", examples=["/v1"]
    )
    regex: values.RegexText | None = key(
        "Matches the whole path, without the query. RE2's syntax: no look-around, no back-references; at "
        f"most {MAX_STEPS} steps when compiled. `.` is any character.",
        examples=["/v[0-9]+/.*"],
    )


class GrpcCondition(Section):
    """An empty one, `{}`, takes every gRPC call."""

    service: values.GrpcService | None = key("With its package.", examples=["pkg.Payments"])
    method: values.GrpcMethod | None = key("The name alone; only with a service.", examples=["Charge"])


class ValueCondition(Section):
    """Exactly one of these; a plain text stands for `exact`."""

    exact: values.Text | None = key("The whole value.", examples=["gold"])
    regex: values.RegexText | None = key("Matches the whole value; as for a path.", examples=["gold|silver"])
    prefix: values.NonEmptyText | None = key("The value begins with it.", examples=["go"])
    suffix: values.NonEmptyText | None = key("The value ends with it.", examples=["ld"])
    present: values.Flag | None = key("true: there, whatever its value; false: not there.", examples=[True])


def _path(condition: PathCondition) -> core.PathMatch | None:
    if condition.regex is not None:
        return core.PathMatch(core.PathKind.REGEX, condition.regex.pattern, condition.regex)
    if condition.exact is not None:
        return core.PathMatch(core.PathKind.EXACT, condition.exact)
    return None if condition.prefix is None else core.PathMatch(core.PathKind.PREFIX, condition.prefix)


def _grpc(condition: GrpcCondition) -> core.GrpcMatch:
    return core.GrpcMatch(condition.service, condition.method)


def _written_grpc(grpc: core.GrpcMatch) -> dict[str, str]:
    both = {"service": grpc.service, "method": grpc.method}
    return {name: value for name, value in both.items() if value is not None}


def _tell_grpc(grpc: core.GrpcMatch | None, _: Hidden) -> str | None:
    return None if grpc is None else flow(_written_grpc(grpc))


def _conditions(sections: Mapping[str, ValueCondition]) -> tuple[core.ValueMatch, ...]:
    return tuple(
        core.ValueMatch(name, one.exact, one.regex, one.present, one.prefix, one.suffix)
        for name, one in sections.items()
    )


def _tell_conditions(conditions: tuple[core.ValueMatch, ...], hidden: Hidden) -> str | None:
    return flow({one.name: _tell_condition(one, hidden) for one in conditions}) if conditions else None


def _tell_condition(one: core.ValueMatch, hidden: Hidden) -> str:
    if one.present is not None:
        return flow({"present": one.present})
    if one.regex is not None:
        return flow({"regex": hidden_values.content(one.name, one.regex.pattern, hidden)})
    for kind, part in (("prefix", one.prefix), ("suffix", one.suffix)):
        if part is not None:
            return flow({kind: hidden_values.content(one.name, part, hidden)})
    return hidden_values.content(one.name, str(one.exact), hidden)


def _tell_hosts(hosts: tuple[str, ...], hidden: Hidden) -> str | None:
    return flow([hidden_values.text(host, hidden) for host in hosts]) if hosts else None


def _tell_path(path: core.PathMatch | None, hidden: Hidden) -> str | None:
    return None if path is None else flow({path.kind.value: hidden_values.text(path.value, hidden)})


_HOSTS = Form(tuple, list, _tell_hosts)


def _tell_clients(clients: tuple[str, ...], hidden: Hidden) -> str | None:
    return flow([hidden_values.text(one, hidden) for one in clients]) if clients else None


_CLIENTS = Form(tuple, list, _tell_clients)
_PATH = Form(_path, lambda path: {path.kind.value: path.value}, _tell_path)
_GRPC = Form(_grpc, _written_grpc, _tell_grpc)
_CONDITIONS = Form(_conditions, lambda conditions: [*conditions], _tell_conditions)
_Value = Annotated[ValueCondition, OrShorthand(exact, {"type": "string"})]


class Match(Section):
    """All given conditions must hold; none at all matches everything."""

    built_in = core.Match()

    hosts: list[values.HostPattern] | None = key(
        "Any of these: a host, `*.suffix` for one or more labels in front, `*` for every host. With a port behind "
        "it (`payments:8080`) the client must ask for this one.",
        examples=[["payments", "*.payments.svc"]],
        fills="hosts",
        form=_HOSTS,
    )
    port: values.Port | None = key(
        "The port that the client asks for, with its host or, where that names none, by 80 or (TLS) 443.",
        examples=[8080],
        fills="port",
    )
    path: PathCondition | None = key("A condition on the path.", fills="path", form=_PATH)
    grpc: GrpcCondition | None = key(
        "A gRPC call, and of which service and method; instead of `path`.",
        examples=[{"service": "pkg.Payments", "method": "Charge"}],
        fills="grpc",
        form=_GRPC,
    )
    methods: list[values.Method] | None = key(
        "Any of these, upper and lower case told apart; a method is any token (RFC 9110 9.1).",
        examples=[["GET", "HEAD"]],
        fills="methods",
        form=METHODS,
    )
    headers: dict[values.HeaderName, _Value] | None = key(
        "All of these, by field name.", examples=[{"x-tenant": "gold"}], fills="headers", form=_CONDITIONS
    )
    query: dict[values.Text, _Value] | None = key(
        "All of these, by the parameter's name.", examples=[{"beta": "1"}], fills="query", form=_CONDITIONS
    )
    client: list[values.ClientName] | None = key(
        "Any of these clients, by the certificate that their connection has shown: `spiffe://trust.domain/path` with "
        "all below it (whole segments), or a certificate's DNS name or subject. Needs a listener that asks for "
        "certificates (`tls: {client: request}` or `require`).",
        examples=[["spiffe://cluster.local/ns/shop"]],
        fills="clients",
        form=_CLIENTS,
    )


def _tell_matches(matches: tuple[core.Match, ...], hidden: Hidden) -> str:
    told = [flow(Match.told(one, hidden)) if one != core.Match() else "everything" for one in matches]
    return f"any of {flow(told)}" if len(told) > 1 else told[0]


def _stored_matches(sections: list[Match]) -> tuple[core.Match, ...]:
    """An empty list is a problem that was told before."""
    return tuple(section.store(core.Match()) for section in sections) or (core.Match(),)


_MATCHES = Form(_stored_matches, tell=_tell_matches)
_UPSTREAM = Form(
    lambda written: ((upstream_name(written), 1),),
    tell=lambda shares, _: shares[0][0] if len(shares) == 1 else None,
)
_WEIGHTS = Form(
    lambda shares: tuple((name, share.weight) for name, share in shares.items()),
    tell=lambda shares, _: flow(dict(shares)) if len(shares) > 1 else None,
)
"""Both fill the same field: one upstream is one with the whole weight."""


class Share(Section):
    """An upstream's part of the requests, and what is changed for it alone."""

    built_in = core.ShareFilter()

    weight: values.Weight = required("Its share; 0 for none.", examples=[90])
    request_headers: RequestHeaders | None = key(
        "Changes to the request's header fields, after those of the route.", fills="request_headers"
    )
    response_headers: ResponseHeaders | None = key(
        "Changes to the response's header fields, after those of the route.", fills="response_headers"
    )


_Share = Annotated[Share, OrShorthand(weight_alone, {"type": "integer", "minimum": 0, "maximum": 1_000_000})]


def filters(shares: Mapping[str, Share] | None) -> tuple[tuple[str, core.ShareFilter], ...]:
    """What is changed for single upstreams."""
    found = ((name, share.store(core.ShareFilter())) for name, share in (shares or {}).items())
    return tuple((name, one) for name, one in found if one != core.ShareFilter())


class Route(Policies):
    built_in = core.Route("", DEFAULT_LISTENER, (core.Match(),), ())

    name: values.Name = required(
        "Its identity across reloads, in metrics and in logs; unique.",
        examples=["checkout-to-payments"],
        fills="name",
    )
    listener: values.Name | None = key("The listener whose requests it takes.", fills="listener")
    match: Annotated[list[Match], OrShorthand(_listed)] | None = key(
        "Which requests: one match, or a list of which any must hold. Unset: all of the listener.",
        fills="matches",
        form=_MATCHES,
        is_derived=True,
    )
    upstream: values.UpstreamName | None = key(
        "Where requests go: an upstream's name, or http://host:port or https://host as a shorthand. Or else "
        "`weights`.",
        examples=["payments", "http://127.0.0.1:8080"],
        fills="upstreams",
        form=_UPSTREAM,
        is_derived=True,
    )
    weights: dict[values.Name, _Share] | None = key(
        "Upstreams with their shares of the requests; at least one above zero. Excludes `upstream`. "
        "`{weight: 10, request_headers: …, response_headers: …}` changes fields for one of them alone.",
        examples=[{"payments": 90, "payments-canary": 10}],
        fills="upstreams",
        form=_WEIGHTS,
        is_derived=True,
    )
    redirect: Redirect | None = key(
        "Send the client elsewhere; instead of an upstream.", fills="redirect", is_derived=True
    )
    respond: Respond | None = key("A fixed answer; instead of an upstream.", fills="respond", is_derived=True)
    critical: values.Flag | None = key(
        "In an overload of the sidecar, requests of this route are refused last.",
        examples=[True],
        fills="is_critical",
    )

    @classmethod
    def told(cls, value: Any, hidden: Hidden = frozenset(), prefix: str = "") -> dict[str, str]:
        """With what is changed for single upstreams, which fills a field of its own."""
        told = super().told(value, hidden, prefix)
        for name, one in value.filters:
            told |= Share.told(one, hidden, f"{prefix}weights.{name}.")
        return told
