"""Who produces this telemetry: the resource that goes with every span, metric and log record.

From weakest to strongest: the SDK's own facts, the file's service name, the Kubernetes downward API
(`env.valueFrom.fieldRef` in the pod's manifest, see the table below), `OTEL_RESOURCE_ATTRIBUTES` and
`OTEL_SERVICE_NAME`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

KUBERNETES = {
    "POD_NAME": "k8s.pod.name",
    "POD_NAMESPACE": "k8s.namespace.name",
    "POD_UID": "k8s.pod.uid",
    "NODE_NAME": "k8s.node.name",
    "CONTAINER_NAME": "k8s.container.name",
}
"""Environment variable -> resource attribute."""

DEFAULT_SERVICE_NAME = "sidecar"


def make_resource(service_name: str | None, environ: Mapping[str, str]) -> Resource:
    """Build the resource of this process. Each process is its own `service.instance.id`, so that the metrics
    of several workers in one pod stay apart."""
    attributes: dict[str, str] = {
        "service.name": service_name or DEFAULT_SERVICE_NAME,
        "service.instance.id": str(uuid.uuid4()),
    }
    for variable, attribute in KUBERNETES.items():
        value = environ.get(variable, "").strip()
        if value:
            attributes[attribute] = value
    return Resource.create(attributes).merge(OTELResourceDetector().detect())
