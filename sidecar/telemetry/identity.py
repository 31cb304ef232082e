"""Who produces this telemetry, as plain attributes: for OTLP's resource and for Prometheus' `target_info` alike.

From weakest to strongest: the file's service name, the Kubernetes downward API (`env.valueFrom.fieldRef` in the pod's
manifest, see the table below), `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`. A value of blanks is none.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from functools import cache
from typing import Final
from urllib.parse import unquote

from sidecar.core.contract import BUILD
from sidecar.core.installed import version

KUBERNETES: Final = {
    "POD_NAME": "k8s.pod.name",
    "POD_NAMESPACE": "k8s.namespace.name",
    "POD_UID": "k8s.pod.uid",
    "NODE_NAME": "k8s.node.name",
    "CONTAINER_NAME": "k8s.container.name",
}
"""Environment variable -> resource attribute."""

WORKER: Final = "SIDECAR_WORKER"
"""Environment variable of one process of several: a worker's number, or `control`."""
DEFAULT_SERVICE_NAME: Final = "sidecar"


def resource_attributes(service_name: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """All that is known of this process. Its `service.instance.id` is that of no other process, so that an
    instrumented app of the same name and several workers in one pod stay apart."""
    worker = environ.get(WORKER, "").strip()
    first = os.getppid() if worker else os.getpid()
    instance = _instance(environ.get("POD_UID", "").strip(), first, os.getpid())
    found = {
        "service.name": service_name or DEFAULT_SERVICE_NAME,
        "service.instance.id": f"{instance}/{worker}" if worker else instance,
        "service.version": version(),
        "sidecar.build": BUILD,
    }
    for variable, attribute in KUBERNETES.items():
        value = environ.get(variable, "").strip()
        if value:
            found[attribute] = value
    if "k8s.namespace.name" in found:
        found["service.namespace"] = found["k8s.namespace.name"]
    for item in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = item.partition("=")
        if key.strip() and value.strip():
            found[key.strip()] = unquote(value.strip())
    if name := environ.get("OTEL_SERVICE_NAME", "").strip():
        found["service.name"] = name
    return {_readable(key): _readable(value) for key, value in found.items()}


def _readable(text: str) -> str:
    """With a sign in place of each byte of the environment that is no UTF-8: no format can tell those."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@cache
def _instance(pod_uid: str, first: int, _process: int) -> str:
    """Of a container's first process and its children the pod's own id, which survives its restarts; else a random
    one for each process."""
    return f"{pod_uid}/sidecar" if pod_uid and first == 1 else str(uuid.uuid4())
