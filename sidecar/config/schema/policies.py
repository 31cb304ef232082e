"""The policies of a route as the file writes them: every one may stand in a route and in `defaults`."""

from __future__ import annotations

from typing import Any

from sidecar.config.schema import values
from sidecar.config.schema.actions import BODY, Clients, Cors
from sidecar.config.schema.breaker import CircuitBreaker
from sidecar.config.schema.form import FIELDS, HIDEABLE, METHODS, NAME_LIST, NAME_SET, WORDS, Form, Hidden
from sidecar.config.schema.section import Section, key, required
from sidecar.config.schema.upstreams import upstream_name
from sidecar.core import snapshot as core


class Rewrite(Section):
    built_in = core.Rewrite()

    prefix: values.Path | None = key(
        "Replaces the prefix that `match.path.prefix` matched, so every match of the route needs one. "
        "Unset: the path is sent as it came.",
        examples=["/", "/api"],
        fills="prefix",
        form=HIDEABLE,
    )
    path: values.Path | None = key(
        "Replaces the whole path; the query stays. Excludes `prefix`.",
        examples=["/whole/new"],
        fills="path",
        form=HIDEABLE,
    )
    host: values.RewriteHost | None = key(
        "The Host that the upstream sees. Unset: the caller's own.",
        examples=["payments.internal"],
        fills="host",
        form=HIDEABLE,
    )


class RequestHeaders(Section):
    """Applied in the order remove, set, add. A value may hold variables of requests, such as `${client.address}`."""

    built_in = core.HeaderOps()

    set: dict[values.SettableRequestHeader, values.HeaderTemplate | None] | None = key(
        "Fields to replace, or to add when they are missing. "
        "In a route, null takes back what `defaults` sets.",
        examples=[{"x-mesh": "a"}],
        fills="set",
        form=FIELDS,
    )
    add: dict[values.SettableRequestHeader, values.HeaderTemplate | None] | None = key(
        "Fields to append beside those of the same name.",
        examples=[{"x-hop": "sidecar"}],
        fills="add",
        form=FIELDS,
    )
    remove: list[values.SettableRequestHeader] | None = key(
        "Fields to drop.", examples=[["x-debug"]], fills="remove", form=NAME_SET
    )


class ResponseHeaders(Section):
    """Applied in the order remove, set, add. A value may hold variables of requests, such as `${client.address}`."""

    built_in = core.HeaderOps()

    set: dict[values.SettableHeader, values.HeaderTemplate | None] | None = key(
        "Fields to replace, or to add when they are missing. "
        "In a route, null takes back what `defaults` sets.",
        examples=[{"cache-control": "no-store"}],
        fills="set",
        form=FIELDS,
    )
    add: dict[values.SettableHeader, values.HeaderTemplate | None] | None = key(
        "Fields to append beside those of the same name.",
        examples=[{"x-hop": "sidecar"}],
        fills="add",
        form=FIELDS,
    )
    remove: list[values.SettableHeader] | None = key(
        "Fields to drop.", examples=[["server"]], fills="remove", form=NAME_SET
    )


class Timeouts(Section):
    built_in = core.RouteTimeouts()

    request: values.DurationOrOff | None = key(
        "For all attempts together, from the request's head to the end of the response; "
        "answered with 504 beyond. "
        "A caller's own shorter deadline wins. `off`: there is no limit, as streams need it.",
        fills="request_seconds",
    )
    attempt: values.DurationOrOff | None = key(
        "For one attempt; at most `request`. Unset, or `off`: an attempt may take all that is left.",
        examples=["800ms"],
        fills="attempt_seconds",
    )
    head: values.DurationOrOff | None = key(
        "From the sending of an attempt to the head of its answer; at most `request`. Unset, or `off`: the head may "
        "take as long as the attempt.",
        examples=["500ms"],
        fills="head_seconds",
    )
    idle: values.DurationOrOff | None = key(
        "Without a byte in either direction, for bodies and tunnels; the exchange is given up beyond. `off`: silence "
        "ends nothing.",
        fills="idle_seconds",
    )


class Deadline(Section):
    built_in = core.DeadlinePolicy()

    mode: values.PolicyMode | None = key(
        "`enforce` acts on deadlines, `observe` measures and acts on none, `off` ignores them.", fills="mode"
    )
    max: values.Duration | None = key(
        "Cap on what a caller may ask for. Unset: `timeouts.request` alone bounds it.",
        examples=["10s"],
        fills="max_seconds",
    )
    offset: values.DurationOrZero | None = key(
        "Taken off what a caller or a trace gave, to answer before the caller gives up; "
        "at most a tenth of that budget.",
        fills="offset_seconds",
    )
    headers: list[values.HeaderName] | None = key(
        "Timeout header fields that are read from callers; the smallest valid one counts.",
        fills="headers",
        form=NAME_LIST,
    )
    recover_from_trace: values.Flag | None = key(
        "Find the deadline of the inbound exchange that caused an outbound request by its trace context.",
        fills="recover_from_trace",
    )
    cancel_with_caller: values.CancelMode | None = key(
        "Which outbound exchanges end with the inbound one that caused them: `safe` (GET, HEAD, OPTIONS), "
        "`all` or `off`.",
        fills="cancel_with_caller",
    )
    inject_baggage: values.Flag | None = key(
        "Also write the budget into `baggage` as `deadline-ms`, for hops without a sidecar.",
        fills="inject_baggage",
    )


class Admission(Section):
    built_in = core.AdmissionPolicy()

    mode: values.PolicyMode | None = key(
        "`enforce` answers 504 at once when the budget is too small to succeed, `observe` counts what "
        "it would have refused (`sidecar.admission.requests`), `off` does neither.",
        fills="mode",
    )
    min_budget: values.MinBudget | None = key(
        "The smallest budget worth trying: a duration, or `p50` or `p95` of the route's recent successes.",
        examples=["p50", "20ms"],
        fills="min_budget",
    )
    max_reject_ratio: values.Ratio | None = key(
        "At most this share of requests is refused, so that the estimate keeps learning.",
        fills="max_reject_ratio",
    )


class RetryBackoff(Section):
    built_in = core.RetryPolicy()

    base: values.Duration | None = key(
        "The wait before the first retry is anything up to this; before each further one up to twice as much.",
        fills="base_seconds",
    )
    max: values.Duration | None = key("Where that doubling ends.", fills="max_seconds")


class RetryBudgetSection(Section):
    built_in = core.RetryPolicy()

    ratio: values.Ratio | None = key(
        "Each request allows this many retries. What a second allows is kept at most, and three.",
        fills="ratio",
    )
    min_per_second: values.CountOrZero | None = key(
        "So many are allowed in any case: all that an upstream gets that has not answered well for 1 s.",
        fills="min_per_second",
        form=Form(float, int),
    )


class Retry(Section):
    built_in = core.RetryPolicy()

    attempts: values.FewTries | None = key(
        "Tries after the first one; 0: none. Whatever it says, a request that has certainly reached nobody is "
        "given to another endpoint, and a GET, HEAD or OPTIONS leaves an endpoint that has just failed others.",
        fills="attempts",
    )
    on: list[values.RetryItem] | None = key(
        "After what: `connect_failure`, `refused` (the upstream did nothing with it, or the breaker of the next "
        "sidecar was open), `reset`, `attempt_timeout`, `5xx`, `gateway_error` (502, 503, 504), a status.",
        examples=[["connect_failure", "refused", "gateway_error"]],
        fills="on",
        form=WORDS,
    )
    backoff: RetryBackoff | None = key("How long to wait; `Retry-After` of an answer comes on top.")
    budget: RetryBudgetSection | None = key("How many retries there are in all, of one route and upstream.")
    non_idempotent: values.Flag | None = key(
        "POST, PATCH and the like are tried again too after what may have reached the upstream: it has to bear "
        "the same request twice.",
        fills="is_non_idempotent",
    )
    buffer: values.Size | None = key(
        "A longer request body is streamed, not kept, and not sent again.", fills="buffer_bytes"
    )
    nested: values.Flag | None = key(
        "A request that is a retry (`x-sidecar-retry`), or is made for one, is tried again here too. Retries "
        "multiply so.",
        fills="is_nested",
    )


class Hedge(Section):
    """A second try beside one that is slow, at another endpoint: the first answer is the client's, and the other try
    ends. For idempotent methods, or all with `retry.non_idempotent`; within `retry.budget`.
    """

    built_in = core.HedgePolicy()

    after: values.HedgeAfter | None = key(
        "From the beginning of a try: a duration, or `p95` of the route's recent successes, of which a twentieth is "
        "slower. With `p95` under 6 of 100 requests are sent twice, whatever happens.",
        examples=["p95", "50ms"],
        fills="after",
    )
    max: values.Hedges | None = key(
        "So many beside the first, each `after` later than the one before.", fills="most"
    )


class Mirror(Section):
    """A copy of some requests for another upstream. Its answers are dropped; it neither delays nor fails the request,
    and counts for no breaker.
    """

    built_in = core.MirrorPolicy()

    upstream: values.UpstreamName = required(
        "Where copies go: a name, or http://host:port or https://host.",
        examples=["shadow"],
        fills="upstream",
        form=Form(upstream_name),
    )
    share: values.Ratio | None = key("Of the requests, by chance.", examples=["10%"], fills="share")
    methods: list[values.Method] | None = key(
        "Which are copied. Others than GET, HEAD and OPTIONS are acted on twice where both upstreams write to one "
        "place.",
        examples=[["GET", "POST"]],
        fills="methods",
        form=METHODS,
    )
    buffer: values.Size | None = key(
        "Of a request's body that the copy's upstream has not taken when more of it comes; a copy that is further "
        "behind is cut.",
        fills="buffer_bytes",
    )
    attempt: values.Duration | None = key("For a whole copy, its answer included.", fills="attempt_seconds")
    max_in_flight: values.Count | None = key(
        "Copies of this route under way; further requests are not copied.", fills="most_in_flight"
    )


class Fallback(Section):
    """A fixed response (status, headers, body or body_file), or another upstream."""

    built_in = core.FallbackPolicy()

    status: values.Status | None = key("Of the fixed response.", fills="status")
    headers: dict[values.SettableHeader, values.HeaderTemplate | None] | None = key(
        "Of the fixed response; a value may hold variables of requests, such as `${request.id}`.",
        examples=[{"content-type": "application/json"}],
        fills="headers",
        form=FIELDS,
    )
    body: values.Text | None = key(
        "Of the fixed response, sent as UTF-8.", examples=['{"items": []}'], fills="body", form=BODY
    )
    body_file: values.FileName | None = key(
        "A file that holds the body, in the directory of the configuration file or below; read at each load and "
        "watched.",
        examples=["fallback.json"],
    )
    upstream: values.UpstreamName | None = key(
        "Send the request there instead: a name, or http://host:port or https://host. Excludes the fixed response.",
        fills="upstream",
        form=Form(upstream_name),
    )

    @classmethod
    def told(cls, value: Any, hidden: Hidden = frozenset(), prefix: str = "") -> dict[str, str]:
        """Another upstream, or the fixed response; not what the other one would be."""
        if value.upstream is not None:
            return {f"{prefix}upstream": value.upstream}
        return super().told(value, hidden, prefix)


class Policies(Section):
    """What may stand in a route and, for all routes at once, in `defaults`. A route's own key wins, key by
    key.
    """

    built_in = core.Route("", "", (core.Match(),), ())

    rewrite: Rewrite | None = key("Changes to what the upstream is asked for.", fills="rewrite")
    request_headers: RequestHeaders | None = key(
        "Changes to the request's header fields.", fills="request_headers"
    )
    response_headers: ResponseHeaders | None = key(
        "Changes to the response's header fields.", fills="response_headers"
    )
    timeouts: Timeouts | None = key("How long an exchange may take.", fills="timeouts")
    deadline: Deadline | None = key(
        "How callers' deadlines are read, bounded and handed on.", fills="deadline"
    )
    admission: Admission | None = key("Whether to refuse what cannot finish in time.", fills="admission")
    clients: Clients | None = key("Whom the route serves, by the client's address.", fills="clients")
    cors: Cors | None = key(
        "Which pages of other origins may use the route. Unset: the upstream answers for itself; null takes back "
        "what `defaults` gives.",
        fills="cors",
    )
    max_request_body: values.Size | None = key(
        "A longer body of a request is answered 413 as soon as that is known. Unset: any length.",
        examples=["10MiB"],
        fills="max_request_body_bytes",
    )
    circuit_breaker: CircuitBreaker | None = key(
        "When to stop asking an upstream that fails; one breaker for each route and upstream.",
        fills="breaker",
    )
    retry: Retry | None = key("What is tried again, how often, and how many in all.", fills="retry")
    hedge: Hedge | None = key(
        "What is sent a second time because it is slow. Unset: nothing; null takes back what `defaults` gives.",
        fills="hedge",
    )
    mirror: Mirror | None = key(
        "A copy of requests for another upstream. Unset: none; null takes back what `defaults` gives.",
        fills="mirror",
    )
    weights_when_open: values.WhenOpenName | None = key(
        "Where the share of an upstream of `weights` goes while its breaker refuses: `shift` gives it to the others, "
        "within their limits; `keep` refuses it.",
        fills="shares.when_open",
    )
    shift_up_to: values.Factor | None = key(
        "With `shift`, no upstream gets more than this many times its own share; the rest is refused.",
        fills="shares.shift_up_to",
    )
    fallback: Fallback | None = key(
        "What the client gets instead of the sidecar's own error. Unset: the error; null takes back what "
        "`defaults` gives.",
        fills="fallback",
    )
