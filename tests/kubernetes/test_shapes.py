"""Whole applications of the shapes that people have: nothing that worked stops working, judged by what comes out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from sidecar.kubernetes.choices import Mode, PullPolicy
from sidecar.kubernetes.inject import Injected, inject_all, uninject
from tests.kubernetes.corpus import SETTINGS, read
from tests.kubernetes.test_inject import data

HERE: Final = Path(__file__).parent / "shapes"
SHAPES: Final = sorted(folder.name for folder in HERE.iterdir())
FLAGS: Final = replace(
    SETTINGS,
    proxy_init=True,
    no_grpc_proxy="metadata.internal",
    env=(("TEAM", "shop"),),
    image_pull_policy=PullPolicy.IF_NOT_PRESENT,
    pull_secrets=("regcred", "other"),
    cpu_limit="1",
    tls_secret="shop-tls",
)
MODES: Final = {mode.value: replace(FLAGS, mode=mode) for mode in Mode}
HTTP1, HTTP2, OTHER = "http1", "http2", "other"
SPEAKS: Final = {
    ("frontend", 80): HTTP1, ("frontend-external", 80): HTTP1, ("catalog", 3550): HTTP2, ("cart", 7070): HTTP2,
    ("redis-cart", 6379): OTHER,
    ("carts", 80): HTTP1, ("carts-db", 27017): OTHER, ("catalogue-db", 3306): OTHER, ("rabbitmq", 5672): OTHER,
    ("user-db", 27017): OTHER,
    ("session-db", 6379): OTHER,
    ("podinfo", 9898): HTTP1, ("podinfo-canary", 80): HTTP1,
    ("details", 9080): HTTP1, ("reviews", 9080): HTTP1, ("productpage", 9080): HTTP1, ("mysqldb", 3306): OTHER,
    ("controller-manager-metrics", 8443): OTHER, ("webhook-service", 443): OTHER,
}  # fmt: skip
"""What stands behind each port of a Service, known to who wrote the manifests: not by any rule of the program's."""
PAST: Final = {("rabbitmq", 9090), ("podinfo", 9999), ("agent", 9100), ("page", 80)}
"""HTTP that callers still reach without the sidecar: a second port of the app's, a pod that gets none, a port that is
not the app's own."""

each_shape = pytest.mark.parametrize("shape", SHAPES)
each_mode = pytest.mark.parametrize("settings", MODES.values(), ids=MODES)


def texts(shape: str) -> list[tuple[str, str]]:
    return [(read(file), file.name) for file in sorted((HERE / shape).glob("*.yaml"))]


def injected(shape: str, settings: Any) -> list[Injected]:
    return inject_all(texts(shape), settings, rewrite_services=True)


def objects(sources: list[str]) -> list[Any]:
    return [item for text in sources for item in data(text) if item is not None]


def pairs(shape: str, settings: Any) -> list[tuple[Any, Any]]:
    before = objects([text for text, _ in texts(shape)])
    after = objects([one.text for one in injected(shape, settings)])
    return list(zip(before, after, strict=True))


def template_of(item: Any) -> Any:
    spec = item.get("spec") or {}
    inner = spec.get("jobTemplate", {}).get("spec", spec)
    return inner.get("template") if item["kind"] != "Service" else None


def templates(shape: str, settings: Any) -> Iterator[tuple[str, Any, Any]]:
    for before, after in pairs(shape, settings):
        if template_of(before) is not None:
            yield before["kind"], template_of(before), template_of(after)


def sidecar_of(spec: Any) -> Any:
    every = [*(spec.get("initContainers") or []), *spec["containers"]]
    return next((item for item in every if item["name"] == "sidecar"), None)


def environment(container: Any) -> dict[str, Any]:
    return {item["name"]: item.get("value") for item in container.get("env") or []}


def number_of(template: Any, port: Any) -> int:
    """Of a port of the pod, by its number or name."""
    every = [one for item in template["spec"]["containers"] for one in item.get("ports") or []]
    return next((one["containerPort"] for one in every if one.get("name") == port), port)


@each_shape
@each_mode
def test_each_port_of_a_service_is_still_answered_in_its_own_protocol(shape: str, settings: Any) -> None:
    everything = pairs(shape, settings)
    workloads = [(template_of(b), template_of(a)) for b, a in everything if template_of(b) is not None]
    for before, after in everything:
        if before["kind"] != "Service":
            continue
        for one, two in zip(before["spec"]["ports"], after["spec"]["ports"], strict=True):
            key = (before["metadata"]["name"], one["port"])
            was, now = one.get("targetPort", one["port"]), two.get("targetPort", two["port"])
            behind = [pair for pair in workloads if selects(before["spec"]["selector"], pair[0])]
            assert behind, key
            is_through = was != now
            assert is_through is (SPEAKS.get(key) in (HTTP1, HTTP2)), key
            assert (key in SPEAKS) is not (key in PAST), key
            for old, new in behind if is_through else []:
                assert now == 15006
                known = environment(sidecar_of(new["spec"]))
                assert known["APP_PORT"] == str(number_of(old, was)), key
                assert known.get("APP_PROTOCOL", HTTP1) == SPEAKS[key], key


def selects(selector: dict[str, str], template: Any) -> bool:
    labels = (template.get("metadata") or {}).get("labels") or {}
    return selector.items() <= labels.items()


@each_shape
@each_mode
def test_what_was_in_a_pod_is_in_it_still(shape: str, settings: Any) -> None:
    for _, before, after in templates(shape, settings):
        old, new = before["spec"], after["spec"]
        for key in set(old) - {"containers", "initContainers", "volumes", "imagePullSecrets"}:
            assert new[key] == old[key]
        for key in ("volumes", "imagePullSecrets"):
            assert [item for item in new.get(key) or [] if item in (old.get(key) or [])] == (
                old.get(key) or []
            )
        for key in ("containers", "initContainers"):
            kept = [item for item in new.get(key) or [] if item["name"] != "sidecar"]
            assert [without_env(item) for item in kept] == [without_env(item) for item in old.get(key) or []]
        labels = (before.get("metadata") or {}).get("labels")
        assert (after.get("metadata") or {}).get("labels") == labels


def without_env(container: Any) -> Any:
    return {key: value for key, value in container.items() if key != "env"}


@each_shape
@each_mode
def test_variables_of_the_apps_own_mean_what_they_meant(shape: str, settings: Any) -> None:
    for _, before, after in templates(shape, settings):
        for key in ("containers", "initContainers"):
            new = {item["name"]: item for item in after["spec"].get(key) or []}
            for container in before["spec"].get(key) or []:
                old, now = environment(container), environment(new[container["name"]])
                for name, value in old.items():
                    is_list = name.lower() in ("no_proxy", "no_grpc_proxy")
                    assert (
                        set(value.split(",")) <= set(now[name].split(",")) if is_list else now[name] == value
                    )
                if "HTTP_PROXY" in old or "http_proxy" in old:
                    assert now == old
                order = [item["name"] for item in new[container["name"]].get("env") or []]
                assert [name for name in order if name in old] == list(old)


@each_shape
@each_mode
def test_no_two_containers_of_a_pod_have_one_port(shape: str, settings: Any) -> None:
    for _, _, after in templates(shape, settings):
        every = [*(after["spec"].get("initContainers") or []), *after["spec"]["containers"]]
        ports = [port["containerPort"] for item in every for port in item.get("ports") or []]
        assert len(ports) == len(set(ports))
        names = [item["name"] for item in itertools.chain(every)]
        assert len(names) == len(set(names))


@each_shape
def test_jobs_end_and_init_containers_have_the_sidecar_before_them(shape: str) -> None:
    for _, before, after in templates(shape, FLAGS):
        assert [item["name"] for item in after["spec"]["containers"]] == [
            item["name"] for item in before["spec"]["containers"]
        ]
        first = (after["spec"].get("initContainers") or [None])[0]
        if sidecar_of(after["spec"]) is not None:
            assert (first["name"], first["restartPolicy"]) == ("sidecar", "Always")


@each_shape
def test_init_containers_get_no_proxy_that_does_not_run_yet(shape: str) -> None:
    for _, before, after in templates(shape, MODES["container"]):
        assert after["spec"].get("initContainers") == before["spec"].get("initContainers")


@each_shape
@each_mode
def test_pods_on_the_hosts_network_are_left_alone_and_told(shape: str, settings: Any) -> None:
    for _, before, after in templates(shape, settings):
        if before["spec"].get("hostNetwork"):
            assert after == before
    left = sum(one.left for one in injected(shape, settings))
    assert left == (1 if shape == "operator" else 0)


@each_shape
@each_mode
def test_it_comes_out_again_to_the_byte(shape: str, settings: Any) -> None:
    found = injected(shape, settings)
    sources = texts(shape)
    assert [uninject(one.text, "x").text for one in found] == [text for text, _ in sources]
    again = inject_all(
        [(one.text, name) for one, (_, name) in zip(found, sources, strict=True)],
        settings,
        rewrite_services=True,
    )
    assert [one.text for one in again] == [one.text for one in found]


@each_shape
def test_every_object_has_a_line(shape: str) -> None:
    notes = "\n".join(note for one in injected(shape, FLAGS) for note in one.notes)
    for item in objects([text for text, _ in texts(shape)]):
        if template_of(item) is not None:
            assert f"{item['kind']} {item['metadata']['name']}: " in notes
        elif item["kind"] == "Service" and item["metadata"]["name"] != "agent":
            assert f"Service {item['metadata']['name']}: " in notes
