"""Routing actions as the file writes them: what a route does with a request beside sending it on."""

from __future__ import annotations

from sidecar.config.schema import hidden_values, values
from sidecar.config.schema.form import FIELDS, HIDEABLE, TEXT_LIST, Form, Hidden
from sidecar.config.schema.section import Section, key
from sidecar.core.actions import policy as core

_TOLD_CHARACTERS = 60
"""Of a body."""


def _tell_body(content: bytes, hidden: Hidden) -> str:
    body = content.decode("utf-8", "replace")
    if body in hidden:
        return hidden_values.mark(body)
    return body if len(body) <= _TOLD_CHARACTERS else f"{body[:_TOLD_CHARACTERS]}… ({len(content)} bytes)"


BODY = Form(str.encode, lambda content: content.decode("utf-8", "replace"), _tell_body)


class Redirect(Section):
    """The client is sent elsewhere. At least one of scheme, host, port, path and prefix; what is unset stays as the
    client asked for it. The query stays."""

    built_in = core.RedirectPolicy()

    status: values.RedirectStatus | None = key("301, 302, 303, 307 or 308.", fills="status")
    scheme: values.SchemeName | None = key("http or https.", examples=["https"], fills="scheme")
    host: values.RedirectHost | None = key(
        "Without a port.", examples=["shop.example"], fills="host", form=HIDEABLE
    )
    port: values.Port | None = key(
        "Unset: that of `scheme` where it is given, else the one that the client asked for.",
        examples=[8443],
        fills="port",
    )
    path: values.Path | None = key(
        "In place of the whole path.", examples=["/moved"], fills="path", form=HIDEABLE
    )
    prefix: values.Path | None = key(
        "In place of the prefix that `match.path.prefix` matched, so every match of the route needs one. Excludes "
        "`path`.",
        examples=["/v2"],
        fills="prefix",
        form=HIDEABLE,
    )


class Respond(Section):
    """A fixed answer, of the route alone: no upstream is asked."""

    built_in = core.RespondPolicy()

    status: values.Status | None = key("Of the answer.", examples=[404], fills="status")
    headers: dict[values.SettableHeader, values.HeaderTemplate] | None = key(
        "Of the answer; a value may hold variables of requests, such as `${request.id}`.",
        examples=[{"content-type": "text/plain"}],
        fills="headers",
        form=FIELDS,
    )
    body: values.Text | None = key("Sent as UTF-8.", examples=["gone"], fills="body", form=BODY)
    body_file: values.FileName | None = key(
        "A file that holds the body, in the directory of the configuration file or below; read at each load and "
        "watched.",
        examples=["gone.html"],
    )


class Clients(Section):
    """Whom a route serves, by the client's address; everybody else is answered 403. IPv4 in IPv6 is IPv4. A client
    without an address (a UNIX socket) is refused wherever there is a list."""

    built_in = core.ClientPolicy()

    allow: list[values.NetworkText] | None = key(
        "Networks or addresses. Unset: all that `deny` does not name.",
        examples=[["10.0.0.0/8", "2001:db8::/32"]],
        fills="allow",
        form=TEXT_LIST,
    )
    deny: list[values.NetworkText] | None = key(
        "Networks or addresses; wins over `allow`.", examples=[["10.0.0.13"]], fills="deny", form=TEXT_LIST
    )
    forwarded_hops: values.CountOrZero | None = key(
        "So many trusted proxies stand before this listener: the client is whom the entry of `X-Forwarded-For` names "
        "that comes so far from its end. 0: the client is who has made the connection. `${client.address}` is the "
        "same one.",
        examples=[1],
        fills="forwarded_hops",
    )


class Cors(Section):
    """Which pages of other origins may use the route (Fetch Standard, CORS protocol). Preflights are answered by the
    sidecar; what an upstream says of CORS itself is left out."""

    built_in = core.CorsPolicy()

    allow_origins: list[values.OriginText] | None = key(
        "Scheme and host, with a port if it is not the usual one; `https://*.example` for every host below one, `*` "
        "for all, `null` for pages without an origin.",
        examples=[["https://shop.example"]],
        fills="allow_origins",
        form=TEXT_LIST,
    )
    allow_credentials: values.Flag | None = key(
        "Requests may carry cookies, client certificates and Authorization.", fills="allow_credentials"
    )
    allow_methods: list[values.Method] | None = key(
        "Beside GET, HEAD and POST, which need no leave; `*` for all.",
        examples=[["PUT", "DELETE"]],
        fills="allow_methods",
        form=TEXT_LIST,
    )
    allow_headers: list[values.HeaderName] | None = key(
        "Fields that a request may have; `*` for all but Authorization, or with credentials all that are asked for.",
        examples=[["content-type", "x-requested-with"]],
        fills="allow_headers",
        form=TEXT_LIST,
    )
    expose_headers: list[values.HeaderName] | None = key(
        "Fields of the answer that a page may read; `*` for all, without credentials alone.",
        examples=[["x-request-id"]],
        fills="expose_headers",
        form=TEXT_LIST,
    )
    max_age: values.DurationOrZero | None = key(
        "How long a browser may remember the answer to a preflight; whole seconds.", fills="max_age_seconds"
    )
    allow_private_network: values.Flag | None = key(
        "Pages of the public network may ask too, although this is a private one.",
        fills="allow_private_network",
    )
