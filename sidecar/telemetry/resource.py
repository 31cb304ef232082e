"""The SDK's form of who produces this telemetry, which goes with every span, metric and log record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry.sdk.resources import Resource

from sidecar.telemetry.identity import resource_attributes

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.38.0"
"""The version of the semantic conventions that names of spans and metrics follow."""


def make_resource(service_name: str | None, environ: Mapping[str, str]) -> Resource:
    """The resource of this process, with the SDK's own facts."""
    named = Resource(resource_attributes(service_name, environ), SCHEMA_URL)
    return Resource.create().merge(named)
