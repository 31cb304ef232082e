"""A pod template as plain data → what injection adds to it. The one place that decides; texts and JSON
patches are made from its answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.kubernetes.settings import (
    OWN_PORTS,
    PREFIX,
    STATUS,
    Mode,
    Settings,
    is_wanted,
    with_annotations,
)

CONTAINER_NAME = "sidecar"
VOLUME_NAME = "sidecar-config"
TLS_VOLUME_NAME = "sidecar-tls"
TOKEN_VOLUME_NAME = "sidecar-token"
VOLUME_NAMES = (VOLUME_NAME, TLS_VOLUME_NAME, TOKEN_VOLUME_NAME)
"""Of what injection adds to a pod."""
CONFIG_DIRECTORY = "/etc/sidecar"
CONFIG_FILE = f"{CONFIG_DIRECTORY}/sidecar.yaml"
TLS_DIRECTORY = "/etc/sidecar-tls"
"""Of `tls.crt`, `tls.key` and `ca.crt`. The whole Secret is mounted: a file by `subPath` would never change."""
TOKEN_DIRECTORY = "/var/run/secrets/sidecar.io/serviceaccount"
"""Of `token` and `ca.crt`: the first of `api.TOKEN_FOLDERS`."""
TOKEN_SECONDS = 3600
"""For which a token is good; the kubelet renews it when 80 % of them are over."""
USER_ID = 65532
"""The image's own user, numeric so that `runAsNonRoot` can be checked."""

_POD_FIELDS = {
    "POD_NAME": "metadata.name",
    "POD_UID": "metadata.uid",
    "POD_NAMESPACE": "metadata.namespace",
    "NODE_NAME": "spec.nodeName",
    "POD_IP": "status.podIP",
    "SIDECAR_ZONE": "metadata.labels['topology.kubernetes.io/zone']",
}
"""Resource attributes of the telemetry, our address family, and our zone, by the downward API. A label that is not
there gives an empty zone: Kubernetes 1.33 and later copy it from the node."""
PROBE_SECONDS = 3
"""For an answer to a probe: Kubernetes' own 1 s is too short where the CPU limit is a tenth of a core."""
MAX_HOLD_SECONDS = 15
"""How long the SIGTERM of a sidecar that is no native one is held back, so that the app can end first."""
_YES = frozenset({"true", "yes", "on", "y"})
"""To the YAML 1.1 of kubectl each of them is true."""
_GRACE_SECONDS = 30
"""Kubernetes' own `terminationGracePeriodSeconds`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pod template gets."""

    mode: Mode
    container: dict[str, Any]
    volumes: list[dict[str, Any]]
    env: dict[str, list[dict[str, str]]]
    """New variables by the name of an app container, those that it has already left out."""
    app_ports: frozenset[int | str]
    """Numbers and names that a Service may call the app's port."""
    inbound_port: int
    has_token: bool = False
    """It may watch EndpointSlices, as far as somebody lets its service account."""

    @property
    def list_name(self) -> str:
        return "initContainers" if self.mode is Mode.NATIVE else "containers"

    def status(self, **more: Any) -> str:
        """The value of the status annotation."""
        env = {name: [item["name"] for item in items] for name, items in self.env.items() if items}
        record: dict[str, Any] = {"mode": self.mode.value}
        if env:
            record["env"] = env
        record.update({key: value for key, value in more.items() if value})
        return json.dumps(record, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A pod template that is left as it is, and why."""

    reason: str


def plan(
    metadata: Mapping[str, Any], spec: Mapping[str, Any], outer: Mapping[str, Any], settings: Settings
) -> Plan | Skipped:
    """Decide for a pod template with `metadata` and `spec`; `outer` is the workload's metadata.

    Raises:
        ValueError: the annotations or the pod cannot be followed; the message says how to help it.
    """
    annotations = {**_mapping(outer, "annotations"), **_mapping(metadata, "annotations")}
    labels = {**_mapping(outer, "labels"), **_mapping(metadata, "labels")}
    if not is_wanted(annotations, labels):
        return Skipped('sidecar.io/inject is "false"')
    if STATUS in _mapping(metadata, "annotations"):
        return Skipped("it has the sidecar already")
    if str(spec.get("hostNetwork")).lower() in _YES:
        return Skipped("it uses the host's network, where the sidecar's ports may be taken")
    if _is_for_windows(spec):
        return Skipped("it runs on Windows, and the sidecar's image is for Linux")
    containers = _list(spec, "containers")
    if any(item.get("name") == CONTAINER_NAME for item in [*containers, *_list(spec, "initContainers")]):
        return Skipped(f"it has a container named {CONTAINER_NAME} of its own")
    for volume in VOLUME_NAMES:
        if any(item.get("name") == volume for item in _list(spec, "volumes")):
            raise ValueError(f"it has a volume named {volume} of its own; give that another name")
    chosen = with_annotations(settings, {k: v for k, v in annotations.items() if k.startswith(PREFIX)})
    native = [item for item in _list(spec, "initContainers") if item.get("restartPolicy") == "Always"]
    _check_ports([*containers, *native], chosen)
    app_port = chosen.app_port or next(_ports(containers), (None, None))[1]
    names = {name for name, number in _ports(containers) if number == app_port and isinstance(name, str)}
    return Plan(
        mode=chosen.mode,
        container=_container(chosen, app_port, spec),
        volumes=_volumes(chosen, spec),
        env={str(item.get("name")): _proxy_env(item, chosen) for item in containers},
        app_ports=frozenset(names if app_port is None else {app_port, *names}),
        inbound_port=chosen.inbound_port,
        has_token=chosen.endpoint_slices,
    )


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def _list(data: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = data.get(key)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _ports(containers: list[Mapping[str, Any]]) -> Iterator[tuple[str | None, int]]:
    for item in containers:
        for port in _list(item, "ports"):
            if isinstance(port.get("containerPort"), int) and port.get("protocol", "TCP") == "TCP":
                yield port.get("name"), port["containerPort"]


def ports_of(containers: list[Mapping[str, Any]]) -> list[int]:
    """The TCP ports that containers tell of, in their order."""
    return [number for _, number in _ports(containers)]


def _check_ports(containers: list[Mapping[str, Any]], settings: Settings) -> None:
    ours = {getattr(settings, name): name.replace("_", "-") for name in OWN_PORTS}
    for _, number in _ports(containers):
        if number in ours:
            raise ValueError(
                f"the app uses port {number}, as the sidecar does: set {PREFIX}{ours[number]} to another"
            )


def _is_for_windows(spec: Mapping[str, Any]) -> bool:
    selector = _mapping(spec, "nodeSelector")
    named = (
        _mapping(spec, "os").get("name"),
        selector.get("kubernetes.io/os"),
        selector.get("beta.kubernetes.io/os"),
    )
    return "windows" in named or "windowsOptions" in _mapping(spec, "securityContext")


def _proxy_env(container: Mapping[str, Any], settings: Settings) -> list[dict[str, str]]:
    if not settings.http_proxy:
        return []
    proxy = f"http://127.0.0.1:{settings.outbound_port}"
    # curl and wget read the lower-case name alone, some runtimes the upper-case one
    wanted = {
        "http_proxy": proxy,
        "HTTP_PROXY": proxy,
        "no_proxy": settings.no_proxy,
        "NO_PROXY": settings.no_proxy,
    }
    known = [item.get("name") for item in _list(container, "env")]
    return [{"name": name, "value": value} for name, value in wanted.items() if name not in known]


def _container(settings: Settings, app_port: int | None, spec: Mapping[str, Any]) -> dict[str, Any]:
    native = {"restartPolicy": "Always"} if settings.mode is Mode.NATIVE else {}
    return {
        "name": CONTAINER_NAME,
        "image": settings.image,
        **native,
        "args": ["run", CONFIG_FILE],
        "env": _env(settings, app_port),
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
            "limits": {"memory": settings.memory},
        },
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": _mounts(settings),
    }


def _volumes(settings: Settings, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The kubelet gives a Secret's files to root and to the pod's `fsGroup`. Without one, only a file that everybody
    may read is readable for the sidecar, which is no root; nobody but who mounts the volume sees it."""
    volumes: list[dict[str, Any]] = [{"name": VOLUME_NAME, "configMap": {"name": settings.config_map}}]
    if settings.tls_secret is not None:
        mode = 0o440 if "fsGroup" in _mapping(spec, "securityContext") else 0o444
        secret = {"secretName": settings.tls_secret, "defaultMode": mode}
        volumes.append({"name": TLS_VOLUME_NAME, "secret": secret})
    if settings.endpoint_slices:
        volumes.append({"name": TOKEN_VOLUME_NAME, "projected": _token(spec)})
    return volumes


def _token(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A token of the pod's service account for the sidecar alone, whether or not the app has one.

    Who may read it is as for a Secret; nobody but who mounts the volume sees it.
    """
    mode = 0o440 if "fsGroup" in _mapping(spec, "securityContext") else 0o444
    return {
        "defaultMode": mode,
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ],
    }


def _mounts(settings: Settings) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [{"name": VOLUME_NAME, "mountPath": CONFIG_DIRECTORY, "readOnly": True}]
    if settings.tls_secret is not None:
        mounts.append({"name": TLS_VOLUME_NAME, "mountPath": TLS_DIRECTORY, "readOnly": True})
    if settings.endpoint_slices:
        mounts.append({"name": TOKEN_VOLUME_NAME, "mountPath": TOKEN_DIRECTORY, "readOnly": True})
    return mounts


def _env(settings: Settings, app_port: int | None) -> list[dict[str, Any]]:
    ports = {"APP_PORT": app_port}
    for item in OWN_PORTS:
        # a slotted dataclass has no class attribute to read the default from
        default = Settings.__dataclass_fields__[item].default
        if getattr(settings, item) != default:
            ports[item.upper()] = getattr(settings, item)
    return [
        *({"name": name, "value": str(port)} for name, port in ports.items() if port is not None),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in _POD_FIELDS.items()
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
