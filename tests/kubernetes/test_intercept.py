"""`inject --intercept`: the init container that writes the rules, the sidecar's user, and the probes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from ruamel.yaml import YAML

from sidecar.kubernetes.choices import ClusterUser, Mode, PullPolicy
from sidecar.kubernetes.inject import inject, uninject
from sidecar.kubernetes.positions import ManifestError
from sidecar.kubernetes.reviewing import review
from sidecar.kubernetes.settings import Settings, init_image_of
from sidecar.upstream.app_probe import AppProbe, read
from tests.kubernetes.test_webhook import admission, patched

SETTINGS = Settings(image="registry/sidecar:1", intercept=True)
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: orders}
spec:
  initContainers:
  - name: migrate
    image: m
  - {name: proxy, image: p, restartPolicy: Always, readinessProbe: {tcpSocket: {port: 9000}}}
  containers:
  - name: app
    image: a
    ports:
    - {name: http, containerPort: 8080}
    livenessProbe:
      # is it alive?
      httpGet:
        path: /healthz   # here
        port: http
        scheme: HTTPS
      periodSeconds: 5

    readinessProbe: {tcpSocket: {port: 8080}, timeoutSeconds: 2}
    startupProbe:
      exec: {command: [x]}
  - name: db
    image: d
    livenessProbe:
      grpc:
        port: 50051
        service: pkg.A
    readinessProbe: {httpGet: {port: unknown}}
    # the end
"""


def done(pod: str = POD, settings: Settings = SETTINGS) -> dict[str, Any]:
    """The pod's spec behind the injection."""
    result = inject(pod, "pod.yaml", settings)
    assert (result.pods, result.left) == (1, 0), result.notes
    spec: dict[str, Any] = YAML(typ="safe", pure=True).load(result.text)["spec"]
    return spec


def named(spec: dict[str, Any], name: str) -> dict[str, Any]:
    items = [*spec["containers"], *spec.get("initContainers", [])]
    found: dict[str, Any] = next(item for item in items if item["name"] == name)
    return found


def changed_to(old: str, new: str) -> str:
    assert old in POD
    return POD.replace(old, new, 1)


def environment(spec: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item.get("value", "") for item in named(spec, "sidecar")["env"]}


def test_a_native_sidecar_starts_behind_the_rules_and_before_all_others() -> None:
    names = [item["name"] for item in done()["initContainers"]]
    assert names == ["sidecar-intercept", "sidecar", "migrate", "proxy"]


def test_without_a_native_sidecar_the_rules_come_last() -> None:
    spec = done(settings=replace(SETTINGS, mode=Mode.CONTAINER))
    assert [item["name"] for item in spec["initContainers"]] == ["migrate", "proxy", "sidecar-intercept"]
    assert spec["containers"][0]["name"] == "sidecar"


def test_the_init_container_has_the_rights_that_it_needs_and_no_others() -> None:
    item = named(done(), "sidecar-intercept")
    assert (item["image"], item["args"]) == ("registry/sidecar-init:1", ["intercept", "--uid=15015"])
    context = item["securityContext"]
    assert (context["runAsUser"], context["runAsNonRoot"]) == (0, False)
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    assert context["allowPrivilegeEscalation"] is False


def test_the_sidecar_has_the_user_that_the_rules_leave_out() -> None:
    spec = done()
    assert named(spec, "sidecar")["securityContext"]["runAsUser"] == 15015
    assert environment(spec)["SIDECAR_UNMATCHED"] == "pass_through"
    other = done(settings=replace(SETTINGS, run_as_user=7000))
    assert named(other, "sidecar")["securityContext"]["runAsUser"] == 7000
    assert named(other, "sidecar-intercept")["args"] == ["intercept", "--uid=7000"]


def test_what_is_skipped_and_other_ports_are_handed_on() -> None:
    settings = replace(
        SETTINGS, init_image="rules:2", skip_inbound_ports=(9100,), skip_outbound_ports=(9092, 9093),
        skip_outbound_cidrs=("10.96.0.1/32",), outbound_port=16001, image_pull_policy=PullPolicy.ALWAYS,
    )  # fmt: skip
    item = named(done(settings=settings), "sidecar-intercept")
    assert (item["image"], item["imagePullPolicy"]) == ("rules:2", "Always")
    assert {"--skip-inbound-ports=9100", "--skip-outbound-ports=9092,9093", "--outbound-port=16001"} < set(
        item["args"]
    )
    (networks,) = [one for one in item["args"] if one.startswith("--skip-outbound-cidrs=")]
    assert networks.endswith(",10.96.0.1/32")
    assert "169.254.0.0/16" in networks


def test_probes_ask_the_sidecar_which_asks_the_app() -> None:
    spec = done()
    app, db = named(spec, "app"), named(spec, "db")
    assert app["livenessProbe"] == {
        "httpGet": {"path": "/app-probe/app/liveness", "port": 15021}, "periodSeconds": 5,
    }  # fmt: skip
    assert app["readinessProbe"] == {
        "httpGet": {"path": "/app-probe/app/readiness", "port": 15021}, "timeoutSeconds": 2,
    }  # fmt: skip
    assert app["startupProbe"] == {"exec": {"command": ["x"]}}, "it runs in the container"
    assert db["readinessProbe"] == {"httpGet": {"port": "unknown"}}, "nobody knows which port that is"
    assert named(spec, "proxy")["readinessProbe"]["httpGet"]["path"] == "/app-probe/proxy/readiness"
    assert read(environment(spec)["SIDECAR_APP_PROBES"]) == {
        "app/liveness": AppProbe(8080, path="/healthz", is_https=True),
        "app/readiness": AppProbe(8080, seconds=2.0),
        "db/liveness": AppProbe(50051, service="pkg.A"),
        "proxy/readiness": AppProbe(9000),
    }


def test_it_is_told_what_stays_and_what_the_namespace_needs() -> None:
    told = " ".join(map(str, inject(POD, "pod.yaml", SETTINGS).notes))
    assert "the readinessProbe of db asks a port that the container does not name" in told
    assert "Pod Security level privileged" in told


@pytest.mark.parametrize("mode", list(Mode))
def test_it_is_taken_out_to_the_byte(mode: Mode) -> None:
    once = inject(POD, "pod.yaml", replace(SETTINGS, mode=mode)).text
    assert uninject(once, "pod.yaml").text == POD
    assert inject(once, "pod.yaml", replace(SETTINGS, mode=mode)).text == once


def test_a_container_of_the_apps_own_that_is_called_so_stays() -> None:
    pod = POD.replace("name: migrate", "name: sidecar-intercept")
    once = inject(pod, "pod.yaml", replace(SETTINGS, intercept=False)).text
    assert uninject(once, "pod.yaml").text == pod


OWN_USER = changed_to("image: a\n", "image: a\n    securityContext: {runAsUser: 15015}\n")
USER_OF_ALL = changed_to("  containers:", "  securityContext: {runAsUser: 7000}\n  containers:")


@pytest.mark.parametrize(
    ("pod", "settings", "says"),
    [
        (OWN_USER, SETTINGS, "app: runs as user 15015"),
        (USER_OF_ALL, replace(SETTINGS, run_as_user=7000), "the pod as a whole: runs as user 7000"),
        (POD, replace(SETTINGS, run_as_user=ClusterUser.UNSET), "run-as-user cannot be unset"),
    ],
)
def test_a_pod_that_cannot_be_intercepted_is_left_with_the_reason(
    pod: str, settings: Settings, says: str
) -> None:
    with pytest.raises(ManifestError, match=re.escape(says)):
        inject(pod, "pod.yaml", settings)


@pytest.mark.parametrize(
    "more",
    [
        {"http_proxy": True},
        {"skip_outbound_ports": (0,)},
        {"skip_outbound_cidrs": ("10.0.0.1/8",)},
        {"init_image": "a b"},
    ],
)
def test_settings_that_make_no_sense_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"choose one|port to skip|no network|reference of an image"):
        Settings(image="sidecar:1", intercept=True, **more)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("sidecar", "sidecar-init"),
        ("sidecar:1.0", "sidecar-init:1.0"),
        ("registry:5000/a/sidecar:1.0", "registry:5000/a/sidecar-init:1.0"),
        ("registry:5000/sidecar:1@sha256:" + "0" * 64, "registry:5000/sidecar-init:1"),
    ],
)
def test_the_image_of_the_rules_stands_beside_the_sidecars(image: str, expected: str) -> None:
    assert init_image_of(image) == expected


@pytest.mark.parametrize("mode", list(Mode))
def test_the_webhook_gives_what_the_command_writes(mode: Mode) -> None:
    settings = replace(SETTINGS, mode=mode)
    pod = YAML(typ="safe", pure=True).load(POD)
    assert patched(pod, review(admission(pod), settings))["spec"] == done(settings=settings)


def test_a_webhook_that_is_asked_again_keeps_the_rules_last() -> None:
    settings = replace(SETTINGS, mode=Mode.CONTAINER)
    pod = YAML(typ="safe", pure=True).load(POD)
    once = patched(pod, review(admission(pod), settings))
    once["spec"]["initContainers"].append({"name": "other", "image": "o"})
    again = patched(once, review(admission(once), settings))
    assert [item["name"] for item in again["spec"]["initContainers"]][-2:] == ["other", "sidecar-intercept"]
    assert patched(again, review(admission(again), settings)) == json.loads(json.dumps(again))
