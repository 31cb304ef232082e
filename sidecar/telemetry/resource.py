"""The SDK's form of who produces this telemetry, which goes with every span, metric and log record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry.sdk.resources import Resource

from sidecar.telemetry.identity import resource_attributes

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.38.0"
"""The version of the semantic conventions that names of spans and metrics follow."""


def make_resource(service_name: str | None, environ: Mapping[str, str]) -> Resource:
    """The resource of this process, with the SDK's own facts.

    It reads the environment, too, and takes bytes that are no UTF-8 as they are, which cannot be sent."""
    named = Resource(resource_attributes(service_name, environ), SCHEMA_URL)
    own = {
        key: value
        for key, value in Resource.create().attributes.items()
        if key in named.attributes or key.isascii()
    }
    return Resource(own).merge(named)
