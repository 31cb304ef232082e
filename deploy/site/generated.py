"""Pages that are made from what runs: commands, metrics, messages and the admin API.

The configuration's reference is made by `sidecar schema --markdown` and lies beside the file that it tells of.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from sidecar.admin.prometheus import metric_name
from sidecar.cli.commands import COMMANDS, parser_of
from sidecar.core.errors import Reason
from sidecar.core.families.catalogue import FAMILIES
from sidecar.core.families.family import Family, MetricKind
from sidecar.core.numbers import BUDGET_BOUNDS, LAG_BOUNDS
from sidecar.core.snapshot import DURATION_BOUNDS
from sidecar.forwarding.answers import TABLE

_WIDTH = "100"
"""Of what a command says of itself, in characters."""


def pages() -> Iterator[tuple[str, str]]:
    """Name and Markdown of each."""
    yield "commands", commands()
    yield "metrics", metrics()
    yield "messages", messages()
    yield "admin-api", admin_api()


def commands() -> str:
    """What each command says at `--help`."""
    os.environ["COLUMNS"] = _WIDTH
    whole, parsers = parser_of(*COMMANDS)
    parts = [
        "# Commands\n",
        "What `sidecar help COMMAND` says, for every command. What holds for all of them is told "
        "[apart](../sidecar/cli/README.md): exit codes, JSON.\n",
        f"```text\n{whole.format_help()}```\n",
    ]
    for name, what in COMMANDS.items():
        parts.append(f"## sidecar {name}\n\n{_sentence(what)}\n\n```text\n{parsers[name].format_help()}```\n")
    return "\n".join(parts)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def metrics() -> str:
    """The catalogue that `/metrics` and OTLP are read from."""
    rows = [
        f"| `{family.name}` | `{_prometheus(family)}` | {family.kind.value.replace('_', '-')} | {_unit(family)} "
        f"| {family.description} |"
        for family in FAMILIES
    ]
    bounds = [
        f"| `{family.name}` | {', '.join(f'{bound:g}' for bound in _bounds(family))} |"
        for family in FAMILIES
        if family.kind is MetricKind.HISTOGRAM
    ]
    return "\n".join([
        "# Metrics\n",
        "Every metric, with its name in OTLP and in `/metrics`. Which labels it has, and what to do with it, is "
        "[told with the traces and logs](../sidecar/telemetry/README.md#metrics). `target_info`, "
        "`sidecar_build_info` and `process_*` stand in `/metrics` alone.\n",
        "| OpenTelemetry | Prometheus | kind | unit | meaning |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "\n## Buckets\n",
        "| histogram | upper bounds |",
        "| --- | --- |",
        *bounds,
        "",
    ])  # fmt: skip


def _bounds(family: Family) -> tuple[float, ...]:
    """In seconds, where the configuration names no others."""
    return {"sidecar.deadline.budget": BUDGET_BOUNDS, "sidecar.loop.lag": LAG_BOUNDS}.get(
        family.name, DURATION_BOUNDS
    )


def _prometheus(family: Family) -> str:
    suffix = "_total" if family.kind is MetricKind.COUNTER else ""
    return metric_name(family) + suffix


def _unit(family: Family) -> str:
    return f"`{family.unit}`" if family.unit else ""


def messages() -> str:
    """The answers that the sidecar gives by itself, and the reasons in log, span and metric."""
    rows = [
        f"| {row.status} | `{reason.error_type}` | `{reason.value}` | `{row.proxy_error}` | {row.title} |"
        for reason, row in sorted(TABLE.items(), key=lambda item: (item[1].status, item[0].value))
    ]
    gone = Reason.CLIENT_GONE
    return "\n".join([
        "# Messages\n",
        "What a client gets when the sidecar answers by itself. `error.type` stands in the answer, the metric and "
        "the span, `reason` in the access log, `Proxy-Status` in the field of that name (RFC 9209). What each means "
        "and what to do is in [When something is wrong](../deploy/INCIDENTS.md#message-meaning-what-to-do); what the "
        "bodies look like, in [What a client gets](../sidecar/forwarding/README.md#what-a-client-gets).\n",
        "| status | `error.type` | `reason` | `Proxy-Status` | title |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        f"\n`{gone.error_type}` has no answer, since nobody is left to get one; the access log has 499.\n",
    ])  # fmt: skip


def admin_api() -> str:
    """`openapi.json` for people."""
    api = json.loads(files("sidecar.admin").joinpath("openapi.json").read_text())
    parts = [
        "# Admin API\n",
        "Every operation of the [admin listener](../sidecar/admin/README.md), as `/openapi.json` of a running "
        "sidecar describes it.\n",
    ]
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            parts += _operation(api, f"{method.upper()} {path}", operation)
    parts.append("## Members of the answers\n")
    for name, schema in api["components"]["schemas"].items():
        parts += _schema(name, schema)
    return "\n".join(parts)


def _operation(api: dict[str, Any], head: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"## `{head}`\n"
    yield _sentence(operation["summary"]) + "\n"
    if "description" in operation:
        yield operation["description"] + "\n"
    parameters = [_resolved(api, one) for one in operation.get("parameters", ())]
    if parameters:
        yield "| parameter | in | is | meaning |\n| --- | --- | --- | --- |"
        for one in parameters:
            yield f"| `{one['name']}` | {one['in']} | {_type(one['schema'])} | {_cell(one.get('description'))} |"
        yield ""
    yield "| status | answer | meaning |\n| --- | --- | --- |"
    for status, response in operation["responses"].items():
        response = _resolved(api, response)
        shapes = [_type(one["schema"]) for one in response.get("content", {}).values() if "schema" in one]
        yield f"| {status} | {', '.join(dict.fromkeys(shapes))} | {_cell(response.get('description'))} |"
    yield ""


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    yield schema.get("description", "") + "\n"
    required = set(schema.get("required", ()))
    if "properties" in schema:
        yield "| member | is | always there | meaning |\n| --- | --- | --- | --- |"
        for member, one in schema["properties"].items():
            there = "yes" if member in required else "no"
            yield f"| `{member}` | {_type(one)} | {there} | {_cell(one.get('description'))} |"
        yield ""
    else:
        yield _type(schema) + "\n"


def _resolved(api: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in value:
        found = api
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        value = found
    return value


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_type(one) for one in schema[key])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(one)}`" for one in schema["enum"])
    kind = schema.get("type", "any value")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _cell(text: str | None) -> str:
    return (text or "").replace("\n", " ").replace("|", "\\|")
