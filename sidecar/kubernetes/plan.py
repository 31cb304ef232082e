"""A pod template as plain data → what injection adds to it. The one place that decides; texts and JSON
patches are made from its answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sidecar.core.dataclass import dataclass
from sidecar.kubernetes import intercept
from sidecar.kubernetes.app_port import AppPort, app_port, ports_of
from sidecar.kubernetes.choices import AppProtocol, Mode
from sidecar.kubernetes.container import CONTAINER_NAME, VOLUME_NAMES, container, volumes
from sidecar.kubernetes.intercept import Probes, Rewritten
from sidecar.kubernetes.protocols import Speaks
from sidecar.kubernetes.proxy_env import ProxyEnv, proxy_env
from sidecar.kubernetes.settings import OWN_PORTS, PREFIX, STATUS, Settings, is_wanted, with_annotations
from sidecar.kubernetes.shapes import items_of, mapping_of, named

DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
"""Which one `kubectl logs` and `kubectl exec` mean; without it the first, which is the sidecar where it is no native
one."""
CONTAINER_LISTS: Final = ("initContainers", "containers")
ENV_RECORDS: Final = ("initEnv", "env")
"""Where the status annotation tells of the variables of each list."""
_YES = frozenset({"true", "yes", "on", "y"})
"""To the YAML 1.1 of kubectl each of them is true."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pod template gets."""

    mode: Mode
    parts: dict[str, list[dict[str, Any]]]
    """Items by the list of the pod's spec whose front they are put at. Another part of an injection, such as one more
    init container, is one more item."""
    env: dict[str, dict[str, ProxyEnv]]
    """By list and name of a container; those that get no proxy are left out."""
    annotations: dict[str, str]
    """New ones, beside the status."""
    last: dict[str, list[dict[str, Any]]]
    """Items by the list of the pod's spec whose end they are put at."""
    probes: dict[str, Probes]
    """By list of containers: probes that are written anew."""
    app: AppPort
    app_protocol: AppProtocol | None
    inbound_port: int
    opaque_ports: frozenset[int]
    told: tuple[str, ...] = ()
    """For the operator: what was left as it was, and what else is needed. The app's port has words of its own."""

    @property
    def container(self) -> dict[str, Any]:
        """The sidecar's own."""
        items = [item for key in CONTAINER_LISTS for item in self.parts.get(key, [])]
        return next(item for item in items if item["name"] == CONTAINER_NAME)

    def _containers(self) -> Iterator[list[dict[str, Any]]]:
        for key in CONTAINER_LISTS:
            yield self.parts.get(key, [])
            yield self.last.get(key, [])

    def status(self, **more: Any) -> str:
        """The value of the status annotation. A container in its `env` was seen, even if it got nothing."""
        record: dict[str, Any] = {"mode": self.mode.value}
        for key, containers in zip(ENV_RECORDS, CONTAINER_LISTS, strict=True):
            names = {
                name: [one["name"] for one in it.new] for name, it in self.env.get(containers, {}).items()
            }
            if names:
                record[key] = names
        if any(item["name"] == intercept.NAME for items in self._containers() for item in items):
            record["intercept"] = True
        if secrets := [one["name"] for one in self.parts.get("imagePullSecrets", [])]:
            record["pullSecrets"] = secrets
        if self.annotations:
            record["annotations"] = list(self.annotations)
        record.update({key: value for key, value in more.items() if value})
        return json.dumps(record, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A pod template that is left as it is, and why."""

    reason: str
    is_asked_for: bool = False
    """Somebody has said so, or it has the sidecar: nothing is wrong."""


def plan(
    metadata: Mapping[str, Any],
    spec: Mapping[str, Any],
    outer: Mapping[str, Any],
    settings: Settings,
    spoken: Mapping[int | str, AppProtocol] | None = None,
) -> Plan | Skipped:
    """Decide for a pod template with `metadata` and `spec`; `outer` is the workload's metadata.

    Args:
        spoken: what Services say of the pod's ports, by number or name, as far as it is known.

    Raises:
        ValueError: the annotations or the pod cannot be followed; the message says how to help it.
    """
    skipped = _skipped(metadata, spec, outer)
    if skipped is not None:
        return skipped
    for volume in VOLUME_NAMES:
        if named(items_of(spec, "volumes"), volume):
            raise ValueError(f"it has a volume named {volume} of its own; give that another name")
    chosen = chosen_settings(metadata, outer, settings)
    containers = items_of(spec, "containers")
    native = [item for item in items_of(spec, "initContainers") if item.get("restartPolicy") == "Always"]
    _check_ports([*containers, *native], chosen)
    app = app_port(containers, chosen.app_port, chosen.opaque_ports)
    protocol = chosen.app_protocol or _protocol(app, spoken or {})
    env = env_of(spec, chosen)
    missing = _missing(spec, chosen, env)
    if missing and PREFIX + "proxy-containers" in _both(outer, metadata, "annotations"):
        raise ValueError(missing)
    annotations = _annotations(chosen, metadata, containers)
    known: dict[str, Any] = {"APP_PORT": app.number, "APP_PROTOCOL": protocol and protocol.value}
    probes = Rewritten()
    if chosen.http_proxy or chosen.intercept:
        known["SIDECAR_UNMATCHED"] = "pass_through"  # what no route names goes on as before
    if chosen.intercept:
        intercept.check_users(spec, intercept.uid_of(chosen))
        chosen = replace(chosen, run_as_user=intercept.uid_of(chosen))
        probes = intercept.rewritten(spec, chosen)
        known[intercept.ENVIRONMENT] = probes.environment
    parts, last = _parts(chosen, known, spec), {}
    if chosen.intercept and chosen.mode is Mode.NATIVE:
        parts["initContainers"].insert(0, intercept.container(chosen))
    elif chosen.intercept:
        last["initContainers"] = [
            intercept.container(chosen)
        ]  # what runs behind it would find nobody to talk to
    return Plan(
        mode=chosen.mode,
        parts=parts,
        last=last,
        probes=probes.probes,
        env=env,
        annotations=annotations,
        app=app,
        app_protocol=protocol,
        inbound_port=chosen.inbound_port,
        opaque_ports=frozenset(chosen.opaque_ports),
        told=(
            *_told(chosen, protocol, env),
            *probes.told,
            *([missing] if missing else []),
            *([_binding(spec, outer)] if chosen.endpoint_slices else []),
        ),
    )


def chosen_settings(metadata: Mapping[str, Any], outer: Mapping[str, Any], settings: Settings) -> Settings:
    """`settings` as the annotations of a template and of its workload change them. Raises: ValueError."""
    found = _both(outer, metadata, "annotations")
    return with_annotations(settings, {key: value for key, value in found.items() if key.startswith(PREFIX)})


def has_sidecar(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    """By its container and the status annotation: alone, anybody may write each of the two."""
    is_there = any(named(items_of(spec, key), CONTAINER_NAME) for key in CONTAINER_LISTS)
    return is_there and STATUS in mapping_of(metadata, "annotations")


def _skipped(
    metadata: Mapping[str, Any], spec: Mapping[str, Any], outer: Mapping[str, Any]
) -> Skipped | None:
    if not is_wanted(_both(outer, metadata, "annotations"), _both(outer, metadata, "labels")):
        return Skipped('sidecar.io/inject is "false"', is_asked_for=True)
    if has_sidecar(metadata, spec):
        return Skipped("it has the sidecar already", is_asked_for=True)
    if any(named(items_of(spec, key), CONTAINER_NAME) for key in CONTAINER_LISTS):
        return Skipped(f"it has a container named {CONTAINER_NAME} of its own")
    if str(spec.get("hostNetwork")).lower() in _YES:
        return Skipped("it uses the host's network, where the sidecar's ports may be taken")
    if _is_for_windows(spec):
        return Skipped("it runs on Windows, and the sidecar's image is for Linux")
    return None


def _parts(
    chosen: Settings, app: Mapping[str, Any], spec: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    place = "initContainers" if chosen.mode is Mode.NATIVE else "containers"
    parts = {place: [container(chosen, app, spec)], "volumes": volumes(chosen, spec)}
    known = items_of(spec, "imagePullSecrets")
    secrets = [{"name": name} for name in dict.fromkeys(chosen.pull_secrets) if not named(known, name)]
    return parts | ({"imagePullSecrets": secrets} if secrets else {})


def env_of(spec: Mapping[str, Any], chosen: Settings) -> dict[str, dict[str, ProxyEnv]]:
    """The proxy's variables for each container that is to have them."""
    if not chosen.http_proxy:
        return {}
    found: dict[str, dict[str, ProxyEnv]] = {}
    wanted = chosen.proxy_containers
    for key in CONTAINER_LISTS:
        others = [item for item in items_of(spec, key) if item.get("name") != CONTAINER_NAME]
        if key == "initContainers" and not (chosen.proxy_init and chosen.mode is Mode.NATIVE):
            others = []
        names = {str(item.get("name")): item for item in others}
        found[key] = {
            name: proxy_env(item, chosen) for name, item in names.items() if name in (wanted or names)
        }
    return {key: containers for key, containers in found.items() if containers}


def _missing(spec: Mapping[str, Any], chosen: Settings, env: Mapping[str, Mapping[str, ProxyEnv]]) -> str:
    """Of containers that are to have the proxy and are not there; a flag is for many pods, an annotation for one."""
    found = {name for containers in env.values() for name in containers}
    names = [name for name in chosen.proxy_containers if chosen.http_proxy and name not in found]
    there = ", ".join(str(item.get("name")) for item in items_of(spec, "containers"))
    return f"proxy-containers: there is no container {', '.join(names)}, only {there}" if names else ""


def _both(outer: Mapping[str, Any], metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Annotations or labels of a workload and its template; the template's win."""
    return {**mapping_of(outer, key), **mapping_of(metadata, key)}


def _annotations(
    chosen: Settings, metadata: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    if chosen.mode is Mode.NATIVE or DEFAULT_CONTAINER in mapping_of(metadata, "annotations"):
        return {}
    first = next((item["name"] for item in containers if isinstance(item.get("name"), str)), None)
    return {} if first is None else {DEFAULT_CONTAINER: first}


def _protocol(app: AppPort, spoken: Mapping[int | str, AppProtocol]) -> AppProtocol | None:
    """What the pod says of its own port, else what a Service says of it; None for HTTP/1.1, the default."""
    if app.number is None or app.judged.speaks is Speaks.HTTP1:
        return None
    if app.judged.speaks is Speaks.HTTP2:
        return AppProtocol.HTTP2
    ports: tuple[int | str, ...] = (app.number, *sorted(app.names))
    found = next((spoken[port] for port in ports if port in spoken), None)
    return AppProtocol.HTTP2 if found is AppProtocol.HTTP2 else None


def _told(
    chosen: Settings,
    protocol: AppProtocol | None,
    env: Mapping[str, Mapping[str, ProxyEnv]],
) -> Iterator[str]:
    if protocol is AppProtocol.HTTP2:
        yield "its app speaks HTTP/2, so the upstream of its route needs `protocol: ${APP_PROTOCOL:-http1}`"
    if chosen.intercept:
        yield intercept.NEEDS
    if chosen.http_proxy and chosen.proxy_init and chosen.mode is not Mode.NATIVE:
        yield "its init containers get no proxy: they end before a sidecar that is no native one starts"
    for containers in env.values():
        for name, found in containers.items():
            yield from (f"{name} {text}" for text in found.told)


def _binding(spec: Mapping[str, Any], outer: Mapping[str, Any]) -> str:
    """How the pod's service account comes to what it needs to watch EndpointSlices."""
    account = spec.get("serviceAccountName") or "default"
    namespace = outer.get("namespace") or "ITS-NAMESPACE"
    return (
        "in each namespace whose Services it is to watch (the ClusterRole is in deploy/endpoint-slices): kubectl -n"
        f" NAMESPACE create rolebinding {account}-endpoint-slices --clusterrole=sidecar-endpoint-slices"
        f" --serviceaccount={namespace}:{account}"
    )


def _check_ports(containers: Sequence[Mapping[str, Any]], settings: Settings) -> None:
    ours = {getattr(settings, name): name.replace("_", "-") for name in OWN_PORTS}
    for number in ports_of(containers):
        if number in ours:
            raise ValueError(
                f"the app uses port {number}, as the sidecar does: set {PREFIX}{ours[number]} to another"
            )


def _is_for_windows(spec: Mapping[str, Any]) -> bool:
    selector = mapping_of(spec, "nodeSelector")
    at_work = (
        mapping_of(spec, "os").get("name"),
        selector.get("kubernetes.io/os"),
        selector.get("beta.kubernetes.io/os"),
    )
    return "windows" in at_work or "windowsOptions" in mapping_of(spec, "securityContext")
