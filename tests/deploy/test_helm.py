"""The chart of deploy/helm, rendered and linted by a real Helm: it is what the overlays are."""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from ruamel.yaml import YAML

from sidecar.cli import inject as inject_command
from sidecar.cli import webhook
from sidecar.config.load import load_text
from sidecar.kubernetes.settings import Settings
from tests.deploy.helm import CHART, NAMESPACE, ROOT, complaints, notes, rendered
from tests.deploy.test_manifests import KUBERNETES_VERSION, documents
from tests.deploy.tools import tool

CA = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
DIGEST = "sha256:" + 64 * "a"
EVERYTHING: dict[str, Any] = {
    "image": {"registry": "registry.example:5000", "digest": DIGEST},
    "imagePullSecrets": ["registry"],
    "inject": {
        "configMap": "proxy",
        "env": ["REGION=far north", "A=1,2"],
        "runAsUser": 1000680000,
        "appPort": 80,
    },
    "configurations": [{"namespace": "orders", "text": (ROOT / "config" / "minimal.yaml").read_text()}],
    "webhook": {
        "clientCaSecret": "callers",
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
    },
    "certificate": {"source": "generated", "days": 30},
    "monitoring": {
        "podMonitor": {"enabled": True, "namespaces": ["orders"], "labels": {"release": "prometheus"}},
        "rules": {"enabled": True, "runbooks": "https://pages.example/night/"},
        "dashboard": {"enabled": True},
        "prometheus": {"enabled": True, "namespaces": ["orders", "shop"]},
    },
    "endpointSlices": [{"namespace": "shop", "serviceAccount": {"name": "orders", "namespace": "orders"}}],
}
OF_OTHERS = {
    "networkPolicy": {"enabled": False},
    "certificate": {"source": "secret", "secretName": "own", "ca": CA},
    "webhook": {"runAsUser": None, "failurePolicy": "Ignore", "replicas": 1},
    "inject": {"httpProxy": False, "intercept": True, "initImage": "registry.example/sidecar-init:1"},
}
OPERATORS = {"cert-manager.io", "monitoring.coreos.com"}
"""Whose kinds are no part of Kubernetes."""
each_kind = pytest.mark.parametrize(
    "values", [{}, EVERYTHING, OF_OTHERS], ids=["default", "everything", "others"]
)


def of_kind(values: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [item for item in rendered(values) if item["kind"] == kind]


def pods(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [item["spec"]["template"] for item in of_kind(values, "Deployment")]


def meaning(item: dict[str, Any]) -> dict[str, Any]:
    """Without what only tells whose an object is, and with what Kubernetes takes where nothing is said."""
    own: dict[str, Any] = json.loads(json.dumps(item))
    own["metadata"].pop("labels", None)
    _without(own, ("app.kubernetes.io/instance", "checksum/config"))
    for container in own.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
        container.setdefault("imagePullPolicy", "IfNotPresent")
    return own


def _without(value: Any, keys: tuple[str, ...]) -> None:
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _without(one, keys)
    if isinstance(value, dict):
        for key in keys:
            value.pop(key, None)


def by_name(items: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(item["kind"], item["metadata"]["name"]): meaning(item) for item in items}


def test_the_webhook_is_that_of_the_overlay() -> None:
    """But for the namespace, which Helm makes, and the certificate, which the overlay leaves to its reader."""
    chart, overlay = by_name(rendered({})), by_name(documents("webhook"))
    assert overlay.pop(("Namespace", NAMESPACE))
    for kind in ("Certificate", "Issuer"):
        assert chart.pop((kind, "sidecar-webhook"))
    assert chart == overlay


def test_its_prometheus_is_that_of_the_overlay() -> None:
    """But for the namespace that they stand in, and the overlay's own app."""
    values = {"monitoring": {"prometheus": {"enabled": True}, "dashboard": {"enabled": True}}}
    text = json.dumps([item for item in rendered(values) if item not in rendered({})])
    chart = json.loads(text.replace("sidecar-prometheus", "prometheus").replace(NAMESPACE, "orders"))
    text = json.dumps([item for item in documents("monitoring") if item not in documents("base")])
    overlay = json.loads(re.sub(r"(prometheus-config)-\w{10}", r"\1", text))
    assert by_name(chart) == by_name([item for item in overlay if item["kind"] != "NetworkPolicy"])


@pytest.mark.parametrize("name", ["alerts.yaml", "grafana-dashboard.json", "prometheus.yaml"])
def test_its_files_are_those_of_the_overlay(name: str) -> None:
    """A chart reads what lies within it alone, and a link out of it is lost by some ways to pack it."""
    wanted, copy = ROOT / "deploy" / "monitoring" / name, CHART / "files" / name
    if os.environ.get("UPDATE_GOLDEN"):
        copy.write_bytes(wanted.read_bytes())
    assert copy.read_bytes() == wanted.read_bytes(), "UPDATE_GOLDEN=1 pytest tests/deploy/test_helm.py"


def test_the_dashboard_has_the_label_that_grafana_looks_for() -> None:
    (found,) = [
        item for item in of_kind(EVERYTHING, "ConfigMap") if item["metadata"]["name"] == "sidecar-dashboard"
    ]
    (wanted,) = [item for item in documents("monitoring") if item["metadata"]["name"] == "sidecar-dashboard"]
    assert wanted["metadata"]["labels"].items() <= found["metadata"]["labels"].items()


def test_the_rules_are_those_of_the_overlay_with_the_place_of_your_runbooks() -> None:
    (rule,) = of_kind(EVERYTHING, "PrometheusRule")
    text = (ROOT / "deploy" / "monitoring" / "alerts.yaml").read_text()
    assert rule["spec"] == YAML(typ="safe").load(
        text.replace("runbooks.example/sidecar", "pages.example/night")
    )
    assert "runbooks.example" not in json.dumps(rule)


def test_who_reads_endpoint_slices_is_told_as_in_the_overlay() -> None:
    values = {"endpointSlices": EVERYTHING["endpointSlices"]}
    chart = [meaning(item) for item in rendered(values) if "rbac" in item["apiVersion"]]
    overlay = [meaning(item) for item in documents("endpoint-slices")]
    for item in (*chart, *overlay):
        if item["kind"] == "RoleBinding":
            item["metadata"].pop("name")
    assert chart == overlay


@each_kind
def test_helm_finds_nothing_to_complain_of(values: dict[str, Any]) -> None:
    assert complaints(values) == []


@each_kind
def test_every_object_is_valid(values: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    own = [item for item in rendered(values) if item["apiVersion"].partition("/")[0] not in OPERATORS]
    with file.open("w") as stream:
        YAML(typ="safe", pure=True).dump_all(own, stream)
    command = [tool("kubernetes-validate"), "--strict", "--no-warn", "-k", KUBERNETES_VERSION, str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@each_kind
def test_every_pod_is_restricted_and_has_a_version(values: dict[str, Any]) -> None:
    assert pods(values)
    for template in pods(values):
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in template["spec"]["containers"]:
            context = container["securityContext"]
            assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]
            assert re.search(r":[\w.-]+$", container["image"]), container["image"]


def settings(values: dict[str, Any]) -> Settings:
    """As the webhook reads its arguments."""
    (template,) = [one for one in pods(values) if one["spec"]["containers"][0]["name"] == "webhook"]
    (container,) = template["spec"]["containers"]
    (variable,) = container["env"]
    assert variable["value"] == container["image"]
    parser = argparse.ArgumentParser()
    webhook.add_arguments(parser)
    words = [word.replace("$(SIDECAR_IMAGE)", container["image"]) for word in container["args"][1:]]
    return inject_command.settings_of(parser.parse_args(words))


def test_what_is_said_of_injection_reaches_the_webhook() -> None:
    image = f"registry.example:5000/sidecar@{DIGEST}"
    environment = (("REGION", "far north"), ("A", "1,2"))
    assert settings(EVERYTHING) == Settings(
        image=image, http_proxy=True, config_map="proxy", env=environment, app_port=80, run_as_user=1000680000
    )
    assert settings(OF_OTHERS).intercept
    lists = {
        "inject": {
            "opaquePorts": [25, 9300],
            "noProxy": ["a", "10.0.0.0/8"],
            "cpu": "50m",
            "proxyInit": False,
        }
    }
    found = settings(lists)
    assert (found.cpu, found.no_proxy, found.proxy_init) == ("50m", "a,10.0.0.0/8", False)
    assert {25, 9300} <= set(found.opaque_ports)


def test_every_flag_of_injection_can_be_said() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    inject_command.add_settings(parser)
    flags = {option.option_strings[-1].removeprefix("--") for option in parser._actions} - {"image"}
    named = json.loads((CHART / "values.schema.json").read_text())["properties"]["inject"]["properties"]
    assert {re.sub("([A-Z])", lambda found: f"-{found[1].lower()}", name) for name in named} == flags


BAD = [
    ({"repicas": 2}, "repicas"),
    ({"image": {"tag": "latest"}}, "image/tag"),
    ({"image": {"registry": "https://registry.example"}}, "image/registry"),
    ({"image": {"digest": "sha256:12"}}, "image/digest"),
    ({"inject": {"httpProxy": True, "intercept": True}}, "inject"),
    ({"inject": {"http_proxy": True}}, "inject"),
    ({"inject": {"appPort": 70000}}, "inject/appPort"),
    ({"certificate": {"source": "secret", "ca": CA}}, "certificate/secretName"),
    ({"certificate": {"source": "secret", "secretName": "own"}}, "certificate/ca"),
    ({"certificate": {"source": "vault"}}, "certificate/source"),
    ({"networkPolicy": {"from": []}}, "networkPolicy/from"),
    ({"endpointSlices": [{"namespace": "shop"}]}, "endpointSlices/0"),
    ({"configurations": [{"namespace": "orders", "text": ""}]}, "configurations/0/text"),
    ({"webhook": {"replicas": 0}}, "webhook/replicas"),
]


@pytest.mark.parametrize(("values", "place"), BAD, ids=[place for _, place in BAD])
def test_values_that_are_wrong_are_refused_by_their_place(values: dict[str, Any], place: str) -> None:
    with pytest.raises(ValueError, match=re.escape(place)):
        rendered(values)


def test_a_made_certificate_is_the_services_and_of_the_ca_that_the_api_server_gets() -> None:
    (secret,) = of_kind(EVERYTHING, "Secret")
    (hooks,) = of_kind(EVERYTHING, "MutatingWebhookConfiguration")
    assert "annotations" not in hooks["metadata"]
    assert {hook["clientConfig"]["caBundle"] for hook in hooks["webhooks"]} == {secret["data"]["ca.crt"]}
    own, ca = (
        x509.load_pem_x509_certificate(base64.b64decode(secret["data"][name]))
        for name in ("tls.crt", "ca.crt")
    )
    own.verify_directly_issued_by(ca)
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [f"sidecar-webhook.{NAMESPACE}.svc"]
    assert 29 <= (own.not_valid_after_utc - own.not_valid_before_utc).days <= 31
    assert "for 30 days" in notes(EVERYTHING)


def test_your_own_secret_comes_with_your_own_ca() -> None:
    (hooks,) = of_kind(OF_OTHERS, "MutatingWebhookConfiguration")
    assert {base64.b64decode(hook["clientConfig"]["caBundle"]).decode() for hook in hooks["webhooks"]} == {CA}
    assert {hook["failurePolicy"] for hook in hooks["webhooks"]} == {"Ignore"}
    assert pods(OF_OTHERS)[0]["spec"]["volumes"] == [{"name": "tls", "secret": {"secretName": "own"}}]
    assert (
        not of_kind(OF_OTHERS, "Secret")
        + of_kind(OF_OTHERS, "Certificate")
        + of_kind(OF_OTHERS, "NetworkPolicy")
    )


def test_a_configuration_is_handed_over_as_it_is() -> None:
    (found,) = [
        item for item in of_kind(EVERYTHING, "ConfigMap") if item["metadata"]["namespace"] == "orders"
    ]
    assert found["metadata"]["name"] == "sidecar-config"
    assert found["data"] == {"sidecar.yaml": EVERYTHING["configurations"][0]["text"]}
    assert load_text(found["data"]["sidecar.yaml"]).snapshot.routes


def test_prometheus_finds_pods_where_it_may_look() -> None:
    (configuration,) = [
        item for item in of_kind(EVERYTHING, "ConfigMap") if "prometheus.yaml" in item["data"]
    ]
    (job,) = YAML(typ="safe").load(configuration["data"]["prometheus.yaml"])["scrape_configs"]
    assert job["kubernetes_sd_configs"] == [{"role": "pod", "namespaces": {"names": ["orders", "shop"]}}]
    assert [item["metadata"]["namespace"] for item in of_kind(EVERYTHING, "Role")] == ["orders", "shop"]


def test_the_chart_has_the_projects_version() -> None:
    chart = YAML(typ="safe").load(CHART / "Chart.yaml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert chart["version"] == chart["appVersion"] == project


def test_every_value_is_in_the_schema() -> None:
    """Helm checks the defaults against it; so a name that is in one place alone is found here."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = YAML(typ="safe").load(CHART / "values.yaml")
    for name, value in values.items():
        own = schema["properties"][name]
        own = schema["$defs"][own["$ref"].rpartition("/")[2]] if "$ref" in own else own
        if isinstance(value, dict) and name != "inject":
            assert set(value) == set(own["properties"]), name
    assert set(values) == set(schema["properties"]) - {"global"}
