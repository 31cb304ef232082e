"""Odd manifests, half valid or not ours to change: exact where they are injected, told where they are not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ruamel.yaml import YAML

from sidecar.kubernetes.admission import review
from sidecar.kubernetes.choices import Mode
from sidecar.kubernetes.inject import inject, uninject
from sidecar.kubernetes.positions import ManifestError
from tests.kubernetes.corpus import SETTINGS
from tests.kubernetes.test_inject import data, without_sidecar

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      containers:
      - name: app
        image: x:1
        ports: [{containerPort: 8080}]
"""
KNATIVE = """\
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hello}
spec:
  template:
    spec:
      containers:
      - image: hello
        ports: [{containerPort: 8080}]
"""
CRON = """\
apiVersion: apps.kruise.io/v1alpha1
kind: AdvancedCronJob
metadata: {name: nightly}
spec:
  template:
    jobTemplate:
      spec:
        template:
          spec: {restartPolicy: Never, containers: [{name: a, image: b}]}
"""


def web(old: str = "", new: str = "", more: str = "") -> str:
    assert old in WEB
    return WEB.replace(old, new) + more if old else WEB + more


def in_list(kind: str) -> str:
    return f"apiVersion: v1\nkind: {kind}\nitems:\n- " + WEB.rstrip().replace("\n", "\n  ") + "\n"


AS_DATA = YAML(typ="safe").load(WEB)
INJECTED = {
    "documents between comments": f"# head\n---   # first\n{WEB}--- # empty\n# c\n---\n{WEB}...\n# end\n---\n",
    "a YAML directive": "%YAML 1.1\n---\n" + WEB,
    "line ends of two systems": WEB.replace("spec:\n", "spec:\r\n", 1),
    "tabs in strings": web(
        more='        args: ["a\tb"]\n        command:\n        - |\n          if:\n          \techo\n'
    ),
    "a rendered chart": "---\n# Source: web/templates/deployment.yaml\n" + WEB,
    "a name that is yet to be made": WEB.replace("{name: web}", "{generateName: web-}"),
    "metadata of nothing": web("    metadata: {labels: {a: b}}\n", "    metadata:\n"),
    "no metadata": web("    metadata: {labels: {a: b}}\n"),
    "metadata of a tilde": web("{labels: {a: b}}", "~"),
    "init containers after": web(more="      initContainers:\n      - {name: m, image: m}\n      # after\n"),
    "init containers deeper": web(
        "      containers:\n", "      initContainers:\n        - name: m\n          image: m\n      containers:\n"
    ),
    "lists of nothing": web(more="      initContainers:\n      volumes:\n      restartPolicy: Always\n"),
    "empty lists": web(more="      initContainers: []\n      volumes: []\n"),
    "another native sidecar": web(
        more="      initContainers:\n"
        "      - {name: o, image: o, restartPolicy: Always, ports: [{containerPort: 1}]}\n"
    ),
    "a UDP port of the same number": web("{containerPort: 8080}", "{containerPort: 15006, protocol: UDP}"),
    "a list of everything": in_list("List"),
    "a list of its kind": in_list("DeploymentList"),
    "several containers, one with a proxy": web(
        more='      - name: b\n        env:\n        - {name: http_proxy, value: "http://proxy.example"}\n'
    ),
    "a probe by a port's name": web(
        "{containerPort: 8080}",
        "{name: http, containerPort: 8080}",
        "        readinessProbe: {httpGet: {port: http, path: /}}\n",
    ),
    "Argo's Rollout": WEB.replace("apps/v1", "argoproj.io/v1alpha1").replace("Deployment", "Rollout"),
    "OpenKruise's CloneSet": WEB.replace("apps/v1", "apps.kruise.io/v1alpha1").replace("Deployment", "CloneSet"),
    "OpenKruise's AdvancedCronJob": CRON,
    "JSON with tabs": json.dumps(AS_DATA, indent="\t"),
    "JSON in one line": json.dumps(AS_DATA),
    "quoted keys": WEB.replace("spec:", '"spec":').replace("containers:", "'containers':"),
    "a space before a colon": web("containers:", "containers :"),
    "a dash on its own line": web("- name: app", "-\n        name: app"),
    "comments everywhere": web(
        "containers:\n", "containers: # 0\n      # 1\n\n      # 2\n", "      # a\n    # b\n# c\n"
    ),
    "an anchored container that is merged": web(
        "- name: app", "- &c\n        name: app", "      - <<: *c\n        name: d\n"
    ),
    "tags": web("x:1", "!!str x:1"),
    "variables of nothing": web(more="        env:\n"),
    "variables in a flow with comments": web(
        more="        env: [\n          {name: A, value: a},   # one\n          {name: B, value: b},\n        ]\n"
    ),
    "blank lines that belong to a text": web(more="        command:\n        - |+\n          a\n\n\n---\nkind: X\n"),
    "a folded text without an end": web(more="        args:\n        - >-\n          folded\n          text"),
    "a byte order mark in the middle": f"{WEB}---\n\ufeff{WEB}",
    "what is no container": web(more="      - null\n"),
}  # fmt: skip
NOT_OURS = {
    "nothing": "",
    "comments alone": "# nothing\n---\n# still nothing\n---\n\n",
    "no mapping": "- a\n---\nhello\n",
    "an empty list": "apiVersion: v1\nkind: List\nitems:\n",
    "containers that are none": "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [a, b]}\n",
    "a Rollout that refers to a Deployment": (
        "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: r}\n"
        "spec: {workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web}}\n"
    ),
    "OpenKruise's SidecarSet": (
        "apiVersion: apps.kruise.io/v1alpha1\nkind: SidecarSet\nmetadata: {name: a}\n"
        "spec: {containers: [{name: a, image: b}]}\n"
    ),
}
LEFT = {
    "Service hello: left as it is: Knative": KNATIVE,
    "uses the host's network": web(more="      hostNetwork: yes\n"),
    "runs on Windows": web(more="      nodeSelector: {beta.kubernetes.io/os: windows}\n"),
    "it runs on Windows": web(
        more="      securityContext: {windowsOptions: {runAsUserName: ContainerUser}}\n"
    ),
}
REFUSED = {
    "the app uses port 15000, as the sidecar does: set sidecar.io/admin-port": web("8080", "15000"),
    "the app uses port 15021, as the sidecar does: set sidecar.io/probes-port": web(
        more="      initContainers:\n"
        "      - {name: o, image: o, restartPolicy: Always, ports: [{containerPort: 15021}]}\n"
    ),
    "x:1: document 1: not YAML: expected the node content, but found '-'; a Helm chart is rendered first": (
        "{{- if .Values.enabled }}\n" + WEB
    ),
    "x:11: document 1: this is still to be rendered: a Helm chart": web("x:1", '"{{ .Values.image }}"'),
    "is a key written as `? key`?": web("      containers:\n", "      ? containers\n      :\n"),
    "not YAML: unacceptable character #x0000: special characters are not allowed": WEB + "\0",
    "x:12: document 1: not YAML": web("image: x:1\n", "image: x:1\n\t\t"),
}  # fmt: skip


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("text", INJECTED.values(), ids=INJECTED)
def test_it_goes_in_once_and_comes_out_to_the_byte(text: str, mode: Mode) -> None:
    settings = replace(SETTINGS, mode=mode)
    found = inject(text, "x", settings, rewrite_services=True)
    assert len(found.notes) == found.text.count("/startupz")
    assert all(": injected" in note for note in found.notes)
    assert found.notes
    assert inject(found.text, "x", settings, rewrite_services=True).text == found.text
    assert uninject(found.text, "x").text == text
    assert without_sidecar(data(found.text.replace("\ufeff", ""))) == without_sidecar(
        data(text.replace("\ufeff", ""))
    )


@pytest.mark.parametrize("text", NOT_OURS.values(), ids=NOT_OURS)
def test_what_holds_no_pod_stays_as_it_is(text: str) -> None:
    found = inject(text, "x", SETTINGS, rewrite_services=True)
    assert (found.text, found.notes) == (text, [])


@pytest.mark.parametrize(("note", "text"), LEFT.items())
def test_what_cannot_have_a_sidecar_is_left_and_told(note: str, text: str) -> None:
    found = inject(text, "x", SETTINGS, rewrite_services=True)
    assert found.text == text
    assert len(found.notes) == 1
    assert note in found.notes[0]


@pytest.mark.parametrize(("message", "text"), REFUSED.items(), ids=REFUSED)
def test_what_would_go_wrong_is_refused_with_its_place(message: str, text: str) -> None:
    with pytest.raises(ManifestError) as caught:
        inject(text, "x", SETTINGS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_admin_port_makes_room_and_reaches_the_configuration() -> None:
    text = web("8080", "15000").replace(
        "{labels: {a: b}}", '{labels: {a: b}, annotations: {sidecar.io/admin-port: "15900"}}'
    )
    (deployment,) = data(inject(text, "x", SETTINGS).text)
    (container,) = deployment["spec"]["template"]["spec"]["initContainers"]
    assert {"name": "ADMIN_PORT", "value": "15900"} in container["env"]


def test_the_webhook_says_the_same_of_a_port_that_is_taken() -> None:
    pod: dict[str, Any] = AS_DATA["spec"]["template"]
    taken = {**pod, "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 15000}]}]}}
    body = {"apiVersion": "admission.k8s.io/v1", "request": {"uid": "u", "object": taken}}
    response = review(body, SETTINGS)["response"]
    assert response["allowed"] is False
    assert "admin-port" in response["status"]["message"]


def test_a_key_without_a_colon_has_an_empty_value() -> None:
    """`{a}` is `{a: null}`, and what stands behind it belongs to others."""
    for text in (
        web("{a: b}}\n    spec", "{a, b: c}}\n    spec"),
        web(more="---\n{a}\n"),
        web(more="---\n? a\n"),
    ):
        injected = inject(text, "a.yaml", SETTINGS).text
        assert injected.count("name: sidecar\n") == inject(WEB, "a.yaml", SETTINGS).text.count(
            "name: sidecar\n"
        )
        assert uninject(injected, "a.yaml").text == text


@pytest.mark.parametrize("text", ["{spec, a: b}\n", "? spec\n", "kind: Pod\nspec: {containers, a: b}\n"])
def test_nothing_is_put_into_what_has_no_colon(text: str) -> None:
    assert inject(text, "a.yaml", SETTINGS).text == text
