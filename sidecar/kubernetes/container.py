"""The sidecar's own container, and the volumes that it needs, as Kubernetes reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.kubernetes.choices import ClusterUser, Mode
from sidecar.kubernetes.settings import OWN_PORTS, Settings
from sidecar.kubernetes.shapes import mapping_of

CONTAINER_NAME = "sidecar"
VOLUME_NAME = "sidecar-config"
TLS_VOLUME_NAME = "sidecar-tls"
CONFIG_DIRECTORY = "/etc/sidecar"
CONFIG_FILE = f"{CONFIG_DIRECTORY}/sidecar.yaml"
TLS_DIRECTORY = "/etc/sidecar-tls"
"""Of `tls.crt`, `tls.key` and `ca.crt`. The whole Secret is mounted: a file by `subPath` would never change."""

_POD_FIELDS = {
    "POD_NAME": "metadata.name",
    "POD_UID": "metadata.uid",
    "POD_NAMESPACE": "metadata.namespace",
    "NODE_NAME": "spec.nodeName",
    "HOST_IP": "status.hostIP",
}
"""By the downward API: resource attributes of the telemetry, and the node's address, where a collector of each node
listens (`endpoint: "http://${HOST_IP}:4317"`)."""
PROBE_SECONDS = 3
"""For an answer to a probe: Kubernetes' own 1 s is too short where the CPU limit is a tenth of a core."""
MAX_HOLD_SECONDS = 15
"""How long the SIGTERM of a sidecar that is no native one is held back, so that the app can end first."""
_GRACE_SECONDS = 30
"""Kubernetes' own `terminationGracePeriodSeconds`."""


def container(settings: Settings, app: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """`app` is what is known of the app, as variables of the environment."""
    native = {"restartPolicy": "Always"} if settings.mode is Mode.NATIVE else {}
    return {
        "name": CONTAINER_NAME,
        "image": settings.image,
        **(
            {}
            if settings.image_pull_policy is None
            else {"imagePullPolicy": settings.image_pull_policy.value}
        ),
        **native,
        "args": ["run", CONFIG_FILE],
        "env": _env(settings, app),
        "ports": [
            {"name": "sidecar-inbound", "containerPort": settings.inbound_port},
            {"name": "sidecar-probes", "containerPort": settings.probes_port},
        ],
        "startupProbe": _probe("/startupz", settings, periodSeconds=1, failureThreshold=60),
        "readinessProbe": _probe("/readyz", settings, periodSeconds=2, failureThreshold=1),
        "livenessProbe": _probe("/livez", settings, periodSeconds=10, failureThreshold=3),
        "lifecycle": _hooks(settings.mode, spec),
        "resources": {
            "requests": {"cpu": settings.cpu, "memory": settings.memory},
            "limits": {
                **({} if settings.cpu_limit is None else {"cpu": settings.cpu_limit}),
                "memory": settings.memory,
            },
        },
        "securityContext": {
            "runAsNonRoot": True,
            **_user(settings),
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": _mounts(settings),
    }


def _user(settings: Settings) -> dict[str, int]:
    """OpenShift gives each namespace a range of users, and refuses every other one: there the pod names none."""
    user = settings.run_as_user
    return {} if isinstance(user, ClusterUser) else {"runAsUser": user, "runAsGroup": user}


def volumes(settings: Settings, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The kubelet gives a Secret's files to root and to the pod's `fsGroup`. Without one, only a file that everybody
    may read is readable for the sidecar, which is no root; nobody but who mounts the volume sees it."""
    volumes: list[dict[str, Any]] = [{"name": VOLUME_NAME, "configMap": {"name": settings.config_map}}]
    if settings.tls_secret is not None:
        mode = 0o440 if "fsGroup" in mapping_of(spec, "securityContext") else 0o444
        secret = {"secretName": settings.tls_secret, "defaultMode": mode}
        volumes.append({"name": TLS_VOLUME_NAME, "secret": secret})
    return volumes


def _mounts(settings: Settings) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [{"name": VOLUME_NAME, "mountPath": CONFIG_DIRECTORY, "readOnly": True}]
    if settings.tls_secret is not None:
        mounts.append({"name": TLS_VOLUME_NAME, "mountPath": TLS_DIRECTORY, "readOnly": True})
    return mounts


def _env(settings: Settings, app: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a user has named wins over what is known here; Kubernetes takes the last one of a name."""
    values = dict(app)
    for item in OWN_PORTS:
        # a slotted dataclass has no class attribute to read the default from
        default = Settings.__dataclass_fields__[item].default
        if getattr(settings, item) != default:
            values[item.upper()] = getattr(settings, item)
    own = dict(settings.env)
    literal = {name: str(value) for name, value in values.items() if value is not None} | own
    return [
        *({"name": name, "value": value} for name, value in literal.items()),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in _POD_FIELDS.items()
            if name not in own
        ),
    ]


def _probe(path: str, settings: Settings, **times: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": settings.probes_port}, "timeoutSeconds": PROBE_SECONDS, **times}


def _hooks(mode: Mode, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The hooks of all containers run when the pod begins to end: the announcement comes while the app still works.

    A native sidecar gets SIGTERM when the app has gone (KEP-753), so there is nothing to hold back. An ordinary
    container gets it with the app: its hook lasts until the app has had its time, for half of the grace period at
    most, and the other half is the drain's. Its start holds the app back: the kubelet starts the next container
    when the postStart hook has ended.
    """
    if mode is Mode.NATIVE:
        return {"preStop": _command("drain")}
    grace_seconds = spec.get("terminationGracePeriodSeconds")
    if not isinstance(grace_seconds, int):
        grace_seconds = _GRACE_SECONDS
    hold_seconds = max(0, min(MAX_HOLD_SECONDS, grace_seconds // 2))
    return {
        "postStart": _command("healthcheck", "--probe=started", "--wait=60s"),
        "preStop": _command("drain", f"--hold={hold_seconds}s"),
    }


def _command(*words: str) -> dict[str, Any]:
    return {"exec": {"command": ["sidecar", *words, CONFIG_FILE]}}
