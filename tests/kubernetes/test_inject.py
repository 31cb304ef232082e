"""`sidecar inject` over a corpus: what it writes, that it can be undone, and that it does nothing else."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sidecar.kubernetes.api import TOKEN_FOLDERS
from sidecar.kubernetes.choices import Mode
from sidecar.kubernetes.inject import inject, uninject
from sidecar.kubernetes.intercept import KINDS
from sidecar.kubernetes.plan import DEFAULT_CONTAINER
from sidecar.kubernetes.positions import ManifestError
from sidecar.kubernetes.settings import STATUS, Settings, with_annotations
from tests.kubernetes.corpus import GOLDEN, MANIFESTS, SETTINGS, injected, read

each_manifest = pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
VARIANTS = {
    "defaults": replace(SETTINGS, http_proxy=False),
    "http_proxy": SETTINGS,
    "container": replace(SETTINGS, mode=Mode.CONTAINER),
    "tls": replace(SETTINGS, tls_secret="orders-tls"),
    "intercept": replace(SETTINGS, http_proxy=False, intercept=True),
    "intercept_container": replace(SETTINGS, http_proxy=False, intercept=True, mode=Mode.CONTAINER),
}
each_variant = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())


def test_there_are_many_manifests() -> None:
    assert len(MANIFESTS) >= 25


@each_manifest
def test_injection_gives_the_golden_file(path: Path) -> None:
    golden = GOLDEN / path.name
    result = injected(path).encode()
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_bytes(result)
    assert result == golden.read_bytes()


@each_variant
@each_manifest
def test_uninjection_gives_the_input_to_the_byte(path: Path, settings: Settings) -> None:
    assert uninject(injected(path, settings), path.name).text == read(path)


@each_variant
@each_manifest
def test_injection_twice_equals_once(path: Path, settings: Settings) -> None:
    once = injected(path, settings)
    assert inject(once, path.name, settings, rewrite_services=True).text == once


@each_manifest
def test_a_second_injection_takes_the_new_settings(path: Path) -> None:
    other = replace(SETTINGS, image="sidecar:next", http_proxy=False, mode=Mode.CONTAINER)
    again = inject(injected(path), path.name, other, rewrite_services=True).text
    assert again == injected(path, other)


@each_manifest
def test_uninjection_of_what_was_never_injected_changes_nothing(path: Path) -> None:
    assert uninject(read(path), path.name).text == read(path)


@each_variant
@each_manifest
def test_the_result_differs_only_by_the_sidecar(path: Path, settings: Settings) -> None:
    before, after = data(read(path)), data(injected(path, settings))
    if settings.intercept:  # what becomes of probes has tests of its own
        before, after = _without_probes(before), _without_probes(after)
    assert [without_sidecar(item) for item in after] == [_normal(item) for item in before]


@each_manifest
def test_comments_stay_in_their_order(path: Path) -> None:
    assert _comments(injected(path)) == _comments(read(path))


@each_manifest
def test_injected_pods_have_the_sidecar_as_a_native_one_first(path: Path) -> None:
    for spec in pod_specs(data(injected(path))):
        names = [item["name"] for item in spec.get("initContainers") or []]
        if "sidecar" not in names or path.stem == "by_hand":
            continue
        assert names[0] == "sidecar"
        assert spec["initContainers"][0]["restartPolicy"] == "Always"
        assert [v["name"] for v in spec["volumes"]].count("sidecar-config") == 1


def test_json_stays_json() -> None:
    path = next(path for path in MANIFESTS if path.stem == "json")
    spec = json.loads(injected(path))["spec"]["template"]["spec"]
    assert spec["initContainers"][0]["name"] == "sidecar"


def test_line_ends_are_the_files_own() -> None:
    for path in MANIFESTS:
        if path.stem.startswith("crlf"):
            assert "\n" not in injected(path).replace("\r\n", "")


def test_a_pod_sorted_by_kubectl_loses_the_sidecar_and_nothing_else() -> None:
    path = next(path for path in MANIFESTS if path.stem == "statefulset")
    (sorted_data,) = data(injected(path))
    text = json.dumps(sorted_data, sort_keys=True, indent=2)
    assert data(uninject(text, "x").text) == data(read(path))


def test_an_edit_after_the_injection_survives_its_removal() -> None:
    path = next(path for path in MANIFESTS if path.stem == "deployment_plain")
    edited = injected(path).replace(
        "      volumes:\n", "      volumes:\n      - {name: mine, emptyDir: {}}\n"
    )
    assert "mine" in uninject(edited, "x").text
    assert "sidecar" not in uninject(edited, "x").text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n---\nb: [\n", "x.yaml:4: document 2: not YAML: "),
        ("a: {{ .Values.x }}\nb: *none\n", "x.yaml:2: document 1: the alias *none has no anchor before it"),
        ("a: 1\na: 2\n", "x.yaml:2: document 1: the key 'a' is given twice"),
    ],
)
def test_unreadable_yaml_is_named_with_document_and_line(text: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        inject(text, "x.yaml", SETTINGS)
    assert str(caught.value).startswith(message)


POD = """\
---
apiVersion: v1
kind: Pod
metadata:
  name: p
  annotations: {%s}
spec:
  containers:
  - {name: a, image: a%s}
"""


@pytest.mark.parametrize(
    ("annotation", "more", "message"),
    [
        ("sidecar.io/inject: maybe", "", 'sidecar.io/inject: \'maybe\' is neither "true" nor "false"'),
        ("sidecar.io/app-port: http", "", "sidecar.io/app-port: 'http' is no port"),
        ("sidecar.io/app-port: '70000'", "", "app-port 70000: a port is from 1 to 65535"),
        ("sidecar.io/mode: daemon", "", "sidecar.io/mode: 'daemon' is neither native nor container"),
        ("sidecar.io/portt: '1'", "", "unknown annotation sidecar.io/portt; there are sidecar.io/admin-port"),
        ("sidecar.io/image: 'a b'", "", "image: 'a b' is no reference of an image"),
        ('sidecar.io/image: "x,\\u202ey"', "", "is no reference of an image"),
        ('sidecar.io/image: "a\\nb: c"', "", "is no reference of an image"),
        ("sidecar.io/config-map: '../x'", "", "config-map: '../x' is no name of a ConfigMap"),
        ("sidecar.io/cpu: lots", "", "cpu: 'lots' is no quantity of CPU, such as 100m"),
        ("sidecar.io/memory: '-1'", "", "memory: '-1' is no quantity of memory, such as 128Mi"),
        ("sidecar.io/no-proxy: 'a b'", "", "no-proxy: 'a b' is no list of hosts and networks"),
        ("sidecar.io/no-proxy: '" + "a," * 200 + "'", "", "is no list of hosts and networks"),
        ("", ", ports: [{containerPort: 15006}]", "the app uses port 15006, as the sidecar does: set"),
        ("sidecar.io/status: '{'", "", "the annotation sidecar.io/status cannot be read; was it edited?"),
    ],
)
def test_a_pod_that_cannot_be_injected_is_named(annotation: str, more: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        inject(POD % (annotation, more), "x.yaml", SETTINGS)
    assert message in str(caught.value)
    assert str(caught.value).startswith("x.yaml:")
    assert "document 1" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image", "registry.example:5000/team/side_car:1.0"),
        ("image", "sidecar@sha256:" + "0" * 64),
        ("image", "sidecar"),
        ("config_map", "a.b-c"),
        ("cpu", "0.5"),
        ("memory", "1Gi"),
        ("no_proxy", "localhost,10.0.0.0/8,[::1],*.svc,.local"),
        ("no_proxy", ""),
    ],
)
def test_usual_values_of_annotations_are_taken(name: str, value: str) -> None:
    annotation = "sidecar.io/" + name.replace("_", "-")
    assert getattr(with_annotations(SETTINGS, {annotation: value}), name) == value


def test_a_shared_template_is_refused_and_says_what_to_do() -> None:
    text = (
        "apiVersion: v1\nkind: List\nitems:\n"
        "- {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: &s {containers: [{name: a, image: a}]}}\n"
        "- {apiVersion: v1, kind: Pod, metadata: {name: b}, spec: *s}\n"
    )
    with pytest.raises(ManifestError, match=r"x:5: document 1: Pod b: `spec` is the alias \*s.*write it out"):
        inject(text, "x", SETTINGS)
    opted_out = text.replace("{name: b}", '{name: b, labels: {sidecar.io/inject: "false"}}')
    assert inject(opted_out, "x", SETTINGS).notes[-1].startswith("Pod b: left as it is")


def data(text: str) -> list[Any]:
    """Each time a copy: whoever asks may change it."""
    found: list[Any] = pickle.loads(_pickled(text))
    return found


@cache
def _pickled(text: str) -> bytes:
    return pickle.dumps(list(YAML(typ="safe", pure=True).load_all(text.removeprefix("\ufeff"))))


def pod_specs(item: Any) -> Iterator[dict[str, Any]]:
    if isinstance(item, dict):
        if isinstance(item.get("containers"), list):
            yield item
        for value in item.values():
            yield from pod_specs(value)
    elif isinstance(item, list):
        for value in item:
            yield from pod_specs(value)


def _comments(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith("#")]


_PROXY = {"http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"}
_EMPTY: tuple[Any, ...] = (None, [], {})


def _normal(item: Any) -> Any:
    """Empty collections, nulls and what is not there are one to Kubernetes."""
    if isinstance(item, dict):
        return {k: n for k, v in item.items() if (n := _normal(v)) not in _EMPTY and k != "targetPort"}
    return [_normal(value) for value in item] if isinstance(item, list) else item


def without_sidecar(item: Any) -> Any:
    if isinstance(item, dict):
        if item.get("name") in _PROXY:
            own = str(item.get("value")).startswith("http://proxy.example")
            return item if own else None
        pruned = {k: without_sidecar(v) for k, v in item.items() if k not in (STATUS, DEFAULT_CONTAINER)}
        return _normal(pruned)
    if isinstance(item, list):
        kept = [value for value in item if not _is_sidecars(value)]
        return [found for value in kept if (found := without_sidecar(value)) not in (None,)]
    return item


def _without_probes(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _without_probes(value) for key, value in item.items() if key not in KINDS}
    return [_without_probes(value) for value in item] if isinstance(item, list) else item


def _is_sidecars(item: Any) -> bool:
    if not isinstance(item, dict) or item.get("image") == "sidecar:0.0.9":
        return False
    names = ("sidecar", "sidecar-config", "sidecar-tls", "sidecar-token", "sidecar-intercept")
    return item.get("name") in names


def pod_with_secret(pod: str, **more: Any) -> dict[str, Any]:
    settings = replace(SETTINGS, tls_secret="orders-tls")
    text = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n{pod}"
    (found,) = data(inject(text, "pod.yaml", settings).text)
    spec: dict[str, Any] = found["spec"]
    return spec


@pytest.mark.parametrize(("context", "mode"), [("", 0o444), ("  securityContext: {fsGroup: 2000}\n", 0o440)])
def test_secret_is_mounted_as_a_whole_and_readable_for_the_sidecar(context: str, mode: int) -> None:
    spec = pod_with_secret(f"{context}  containers: [{{name: app, image: app}}]\n")
    (volume,) = [item for item in spec["volumes"] if item["name"] == "sidecar-tls"]
    assert volume["secret"] == {"secretName": "orders-tls", "defaultMode": mode}
    mounts = {item["name"]: item for item in spec["initContainers"][0]["volumeMounts"]}
    assert mounts["sidecar-tls"] == {"name": "sidecar-tls", "mountPath": "/etc/sidecar-tls", "readOnly": True}
    assert (
        spec["containers"] == [{"name": "app", "image": "app"}] or "volumeMounts" not in spec["containers"][0]
    )


def test_volume_of_the_same_name_is_refused() -> None:
    pod = "  containers: [{name: app, image: app}]\n  volumes: [{name: sidecar-tls, emptyDir: {}}]\n"
    with pytest.raises(ManifestError, match="a volume named sidecar-tls of its own"):
        pod_with_secret(pod)


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "a b", "-a", "x" * 300])
def test_name_of_a_secret_is_one(name: str) -> None:
    with pytest.raises(ValueError, match=r"tls-secret: .* is no name of a Secret"):
        replace(SETTINGS, tls_secret=name)


TOKEN = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders, namespace: shop}
spec:
  selector: {matchLabels: {app: orders}}
  template:
    metadata:
      labels: {app: orders}
      annotations: {sidecar.io/endpoint-slices: "true"}
    spec:
      serviceAccountName: orders
      automountServiceAccountToken: false
      containers: [{name: app, image: app}]
"""


def test_a_token_of_its_own_is_mounted_for_the_sidecar_alone_and_taken_out_again() -> None:
    made = inject(TOKEN, "orders.yaml", SETTINGS)
    (found,) = data(made.text)
    spec = found["spec"]["template"]["spec"]
    (volume,) = [item for item in spec["volumes"] if item["name"] == "sidecar-token"]
    assert volume["projected"] == {
        "defaultMode": 0o444,
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ],
    }
    mounts = {item["name"]: item["mountPath"] for item in spec["initContainers"][0]["volumeMounts"]}
    assert mounts["sidecar-token"] == TOKEN_FOLDERS[0]
    assert "volumeMounts" not in spec["containers"][0]
    assert uninject(made.text, "orders.yaml").text == TOKEN


def test_inject_says_how_the_service_account_may_watch() -> None:
    told = "\n".join(inject(TOKEN, "orders.yaml", SETTINGS).notes)
    assert (
        "kubectl -n NAMESPACE create rolebinding orders-endpoint-slices --clusterrole=sidecar-endpoint-slices"
        " --serviceaccount=shop:orders"
    ) in told
