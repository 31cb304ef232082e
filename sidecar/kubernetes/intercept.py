"""What an injection with `--intercept` adds to a pod: an init container that writes the rules, and probes that ask
the sidecar, which asks the app (`upstream/app_probe.py` says why).

Pure: decides by a pod's spec as plain data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from sidecar.core.dataclass import dataclass
from sidecar.core.interception import SKIPPED_CIDRS, UID
from sidecar.kubernetes.choices import ClusterUser
from sidecar.kubernetes.settings import Settings, init_image_of
from sidecar.kubernetes.shapes import items_of, mapping_of

NAME: Final = "sidecar-intercept"
ENVIRONMENT: Final = "SIDECAR_APP_PROBES"
KINDS: Final = {"livenessProbe": "liveness", "readinessProbe": "readiness", "startupProbe": "startup"}
_HANDLERS: Final = ("httpGet", "tcpSocket", "grpc")
"""Which the kubelet makes by the network; `exec` runs in the container, and stays."""
_MEMORY: Final = "64Mi"
NEEDS: Final = (
    "its namespace has to admit the Pod Security level privileged, since the init container adds NET_ADMIN and "
    "NET_RAW; where that is refused, --http-proxy does without"
)

Probes = dict[str, dict[str, dict[str, Any]]]
"""By container and key of the probe: what stands there instead."""


@dataclass(slots=True)
class Rewritten:
    """The probes of one pod, as the injection writes them anew."""

    probes: dict[str, Probes] = field(default_factory=dict)
    """By list of containers."""
    asked: dict[str, Any] = field(default_factory=dict)
    """What the sidecar asks, by `container/kind`."""
    told: list[str] = field(default_factory=list)

    @property
    def environment(self) -> str | None:
        return json.dumps(self.asked, separators=(",", ":")) if self.asked else None


def uid_of(settings: Settings) -> int:
    """The sidecar's user, by which the rules know what it sends. Raises: ValueError, where the cluster gives one."""
    user = settings.run_as_user
    if isinstance(user, ClusterUser):
        raise ValueError(
            "intercept needs a user that is known beforehand: run-as-user cannot be unset with it"
        )
    default = Settings.__dataclass_fields__["run_as_user"].default
    return UID if user == default else user  # most distroless images have the usual one, too


def check_users(spec: Mapping[str, Any], uid: int) -> None:
    """Nobody else may have the sidecar's user: what they send would go past it.

    Raises:
        ValueError: somebody has.
    """
    names = [
        str(item.get("name"))
        for key in ("initContainers", "containers")
        for item in items_of(spec, key)
        if mapping_of(item, "securityContext").get("runAsUser") == uid
    ]
    if mapping_of(spec, "securityContext").get("runAsUser") == uid:
        names.append("the pod as a whole")
    if names:
        raise ValueError(
            f"{', '.join(names)}: runs as user {uid}, which is the sidecar's own with intercept; set run-as-user to "
            "another one"
        )


def container(settings: Settings) -> dict[str, Any]:
    """The init container."""
    built_in = Settings.__dataclass_fields__
    arguments = [f"--uid={uid_of(settings)}"]
    for name in ("inbound", "outbound", "probes"):
        port = getattr(settings, f"{name}_port")
        if port != built_in[f"{name}_port"].default:
            arguments.append(f"--{name}-port={port}")
    for name in ("skip_inbound_ports", "skip_outbound_ports"):
        if ports := getattr(settings, name):
            arguments.append(f"--{name.replace('_', '-')}={','.join(map(str, ports))}")
    if settings.skip_outbound_cidrs:
        networks = (*SKIPPED_CIDRS, *settings.skip_outbound_cidrs)
        arguments.append(f"--skip-outbound-cidrs={','.join(networks)}")
    policy = settings.image_pull_policy
    return {
        "name": NAME,
        "image": settings.init_image or init_image_of(settings.image),
        **({} if policy is None else {"imagePullPolicy": policy.value}),
        "args": ["intercept", *arguments],
        "resources": {"requests": {"cpu": "10m", "memory": _MEMORY}, "limits": {"memory": _MEMORY}},
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def rewritten(spec: Mapping[str, Any], settings: Settings) -> Rewritten:
    """The probes of a pod's containers, those of init containers that stay included."""
    found = Rewritten()
    for key in ("initContainers", "containers"):
        for item in items_of(spec, key):
            own = dict(_probes_of(item, settings, found))
            if own:
                found.probes.setdefault(key, {})[str(item.get("name"))] = own
    return found


def _probes_of(
    item: Mapping[str, Any], settings: Settings, found: Rewritten
) -> Iterator[tuple[str, dict[str, Any]]]:
    name = str(item.get("name"))
    for key, kind in KINDS.items():
        probe = mapping_of(item, key)
        handler = next((one for one in _HANDLERS if isinstance(probe.get(one), Mapping)), None)
        if handler is None:
            continue
        port = _number(probe[handler].get("port"), items_of(item, "ports"))
        if port is None:
            found.told.append(
                f"the {key} of {name} asks a port that the container does not name, so it stays as it is"
            )
            continue
        asked: dict[str, Any] = {handler: {**probe[handler], "port": port}}
        if "timeoutSeconds" in probe:
            asked["timeoutSeconds"] = probe["timeoutSeconds"]
        found.asked[f"{name}/{kind}"] = asked
        rest = {word: value for word, value in probe.items() if word not in _HANDLERS}
        yield key, {"httpGet": {"path": f"/app-probe/{name}/{kind}", "port": settings.probes_port}, **rest}


def _number(port: Any, ports: Sequence[Mapping[str, Any]]) -> int | None:
    """Of a port that may be a name."""
    if isinstance(port, int) and not isinstance(port, bool):
        return port
    found = next((one.get("containerPort") for one in ports if one.get("name") == port), None)
    return found if isinstance(found, int) else None
