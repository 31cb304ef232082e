"""A plan → the operations of RFC 6902 that carry it out on a pod; and what a pod that has the sidecar still lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sidecar.kubernetes import intercept
from sidecar.kubernetes.choices import Mode
from sidecar.kubernetes.container import CONTAINER_NAME
from sidecar.kubernetes.intercept import Probes
from sidecar.kubernetes.plan import CONTAINER_LISTS, ENV_RECORDS, Plan, chosen_settings, env_of
from sidecar.kubernetes.proxy_env import ProxyEnv
from sidecar.kubernetes.settings import STATUS, Settings

_Env = dict[str, dict[str, ProxyEnv]]


def patch(pod: dict[str, Any], found: Plan) -> list[dict[str, Any]]:
    """For a pod without the sidecar."""
    spec = pod["spec"]
    operations = [*_variables(spec, found.env), *_probes(spec, found.probes)]
    for key, items in found.parts.items():
        operations += _front(spec.get(key), f"/spec/{key}", items)
    for key, items in found.last.items():
        operations += (
            [_add(f"/spec/{key}/-", item) for item in items]
            if spec.get(key)
            else [_add(f"/spec/{key}", items)]
        )
    return [*operations, *_annotations(pod, {**found.annotations, STATUS: found.status()})]


def completion(pod: dict[str, Any], settings: Settings) -> list[dict[str, Any]]:
    """For a pod that has it: the proxy's variables for containers that others have added since, if the first
    injection gave them to those that were there.

    Raises:
        ValueError: an annotation has no such value.
    """
    spec, metadata = pod["spec"], pod["metadata"]
    record = _record(metadata)
    if record.get("intercept"):
        return _interception_last(spec, record)
    seen = {
        key: record[field] for key, field in zip(CONTAINER_LISTS, ENV_RECORDS, strict=True) if field in record
    }
    if not seen:
        return []
    chosen = replace(chosen_settings(metadata, {}, settings), http_proxy=True, proxy_containers=())
    env: _Env = {}
    for key, containers in env_of(spec, _at_its_port(chosen, spec)).items():
        known = {*seen.get(key, {}), *_before_sidecar(spec, key)}
        new = {name: found for name, found in containers.items() if name not in known}
        if new:
            env[key] = new
    if not env:
        return []
    for key, field in zip(CONTAINER_LISTS, ENV_RECORDS, strict=True):
        added = {name: [item["name"] for item in found.new] for name, found in env.get(key, {}).items()}
        if added:
            record[field] = {**seen.get(key, {}), **added}
    status = json.dumps(record, separators=(",", ":"))
    return [*_variables(spec, env), _add(f"/metadata/annotations/{_escaped(STATUS)}", status)]


def _interception_last(spec: dict[str, Any], record: dict[str, Any]) -> list[dict[str, Any]]:
    """Without a native sidecar the rules are written by the last init container: what another webhook has put behind
    it since would find nobody to talk to."""
    names = [item.get("name") for item in spec.get("initContainers") or []]
    if record.get("mode") != Mode.CONTAINER.value or intercept.NAME not in names[:-1]:
        return []
    at = names.index(intercept.NAME)
    return [{"op": "move", "from": f"/spec/initContainers/{at}", "path": "/spec/initContainers/-"}]


def _probes(spec: dict[str, Any], probes: dict[str, Probes]) -> Iterator[dict[str, Any]]:
    for key, containers in probes.items():
        for index, container in enumerate(spec.get(key) or []):
            for name, probe in containers.get(str(container.get("name")), {}).items():
                yield _add(f"/spec/{key}/{index}/{name}", probe)


def _record(metadata: dict[str, Any]) -> dict[str, Any]:
    """What the first injection wrote; nothing for what somebody else has."""
    try:
        record = json.loads(metadata["annotations"][STATUS])
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    is_ours = isinstance(record, dict) and all(
        isinstance(record.get(field, {}), dict) for field in ENV_RECORDS
    )
    return record if is_ours else {}


def _at_its_port(settings: Settings, spec: dict[str, Any]) -> Settings:
    """The sidecar that is there may have been injected with another outbound port."""
    for key in CONTAINER_LISTS:
        for item in spec.get(key) or []:
            for variable in (item.get("env") or []) if item.get("name") == CONTAINER_NAME else []:
                value = variable.get("value")
                if variable.get("name") == "OUTBOUND_PORT" and isinstance(value, str) and value.isdigit():
                    return replace(settings, outbound_port=int(value[:6]))
    return settings


def _before_sidecar(spec: dict[str, Any], key: str) -> Iterator[Any]:
    """Init containers that end before it starts."""
    names = [item.get("name") for item in spec.get(key) or []]
    if key == "initContainers" and CONTAINER_NAME in names:
        yield from names[: names.index(CONTAINER_NAME)]


def _variables(spec: dict[str, Any], env: _Env) -> Iterator[dict[str, Any]]:
    for key in CONTAINER_LISTS:
        for index, container in enumerate(spec.get(key) or []):
            found = env.get(key, {}).get(str(container.get("name")))
            if found is None:
                continue
            path = f"/spec/{key}/{index}/env"
            known = container.get("env") or []
            last = {str(item.get("name")): at for at, item in enumerate(known)}  # it may be anything
            for name, value in found.changed.items():
                yield _add(f"{path}/{last[name]}/value", value)
            yield from _front(known, path, list(found.new))


def _front(known: Any, path: str, new: list[Any]) -> list[dict[str, Any]]:
    if not new:
        return []
    if not known:
        return [_add(path, new)]
    return [_add(f"{path}/0", item) for item in reversed(new)]


def _annotations(pod: dict[str, Any], new: dict[str, str]) -> list[dict[str, Any]]:
    metadata = pod.get("metadata")
    if not metadata:
        return [_add("/metadata", {"annotations": new})]
    if not metadata.get("annotations"):
        return [_add("/metadata/annotations", new)]
    return [_add(f"/metadata/annotations/{_escaped(key)}", value) for key, value in new.items()]


def _escaped(key: str) -> str:
    """RFC 6901 3."""
    return key.replace("~", "~0").replace("/", "~1")


def _add(path: str, value: Any) -> dict[str, Any]:
    """On a member that exists it replaces the value (RFC 6902 4.1)."""
    return {"op": "add", "path": path, "value": value}
