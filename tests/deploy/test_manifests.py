"""Every overlay of deploy/: builds, is valid, and agrees with the configuration that its ConfigMap carries."""

from __future__ import annotations

import argparse
import importlib
import json
import pickle
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sidecar.cli import check, webhook
from sidecar.cli import inject as inject_command
from sidecar.config.load import load_text
from sidecar.config.schema.units import parse_duration
from sidecar.core.snapshot import Snapshot
from sidecar.kubernetes.choices import Mode
from sidecar.kubernetes.container import CONFIG_FILE
from sidecar.kubernetes.inject import inject
from sidecar.kubernetes.plan import Plan, plan
from sidecar.kubernetes.settings import Settings, is_wanted
from sidecar.transport.tls.served import files_of
from tests.deploy.tools import tool

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(path.parent.name for path in (ROOT / "deploy").glob("*/kustomization.yaml"))
NATIVE = ["base", "fleet", "jaeger", "job", "monitoring", "tls"]
CONFIGURED = [*NATIVE, "legacy"]
KUBERNETES_VERSION = "1.34"
pytestmark = pytest.mark.timeout(300)
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
each_configured = pytest.mark.parametrize("overlay", CONFIGURED)


@cache
def built(overlay: str) -> str:
    command = [tool("kubectl"), "kustomize", str(ROOT / "deploy" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return done.stdout


def documents(overlay: str) -> list[dict[str, Any]]:
    """Each time a copy: whoever asks may change it."""
    found: list[dict[str, Any]] = pickle.loads(_pickled(overlay))
    return found


@cache
def _pickled(overlay: str) -> bytes:
    return pickle.dumps(list(YAML(typ="safe", pure=True).load_all(built(overlay))))


def pods(overlay: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and template of every workload."""
    for item in documents(overlay):
        template = item.get("spec", {}).get("template") if isinstance(item.get("spec"), dict) else None
        if template is not None:
            yield f"{item['kind']}/{item['metadata']['name']}", template


def sidecars(overlay: str) -> list[tuple[dict[str, Any], dict[str, Any], str]]:
    """Pod template, container and list of every sidecar."""
    return [
        (template, container, place)
        for _, template in pods(overlay)
        for place in ("initContainers", "containers")
        for container in template["spec"].get(place) or []
        if container["name"] == "sidecar"
    ]


def configuration(overlay: str, template: dict[str, Any]) -> tuple[str, Snapshot]:
    """The text of the mounted configuration, and what it means with the container's environment."""
    (volume,) = [v for v in template["spec"]["volumes"] if v["name"] == "sidecar-config"]
    (found,) = [
        item
        for item in documents(overlay)
        if item["kind"] == "ConfigMap" and item["metadata"]["name"] == volume["configMap"]["name"]
    ]
    text = found["data"]["sidecar.yaml"]
    return text, load_text(text).snapshot


def test_the_overlays_are_those_promised() -> None:
    assert OVERLAYS == [
        "base",
        "endpoint-slices",
        "fleet",
        "jaeger",
        "job",
        "legacy",
        "monitoring",
        "tls",
        "webhook",
    ]


@each_overlay
def test_an_overlay_builds_and_each_document_is_valid(overlay: str, tmp_path: Path) -> None:
    file = tmp_path / f"{overlay}.yaml"
    parts = built(overlay).split("\n---\n")
    file.write_text("\n---\n".join(part for part in parts if "apiVersion: cert-manager.io/" not in part))
    command = [tool("kubernetes-validate"), "--strict", "--no-warn", "-k", KUBERNETES_VERSION, str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@each_overlay
def test_an_overlay_says_what_to_edit(overlay: str) -> None:
    lines = (ROOT / "deploy" / overlay / "kustomization.yaml").read_text().splitlines()
    assert any(line.startswith("# Edit:") or " Edit: " in line for line in lines if line.startswith("#"))


@pytest.mark.parametrize("overlay", NATIVE)
def test_the_sidecar_is_a_native_one(overlay: str) -> None:
    """kubernetes-validate lets any restartPolicy of an init container pass."""
    found = sidecars(overlay)
    assert found
    for template, container, place in found:
        assert (place, container["restartPolicy"]) == ("initContainers", "Always")
        assert template["spec"]["initContainers"][0] is container
        assert container["startupProbe"]["httpGet"]["path"] == "/startupz"


def test_before_native_sidecars_it_is_the_first_container_and_holds_the_others_back() -> None:
    for template, container, place in sidecars("legacy"):
        assert place == "containers"
        assert "restartPolicy" not in container
        assert template["spec"]["containers"][0] is container
        words = container["lifecycle"]["postStart"]["exec"]["command"]
        assert words[1:4] == ["healthcheck", "--probe=started", "--wait=60s"]


def test_a_legacy_job_ends_its_sidecar_whatever_happens() -> None:
    (template,) = [template for name, template in pods("legacy") if name.startswith("Job/")]
    script = template["spec"]["containers"][1]["args"][0]
    assert "trap" in script
    assert "http://127.0.0.1:15000/quitquitquit' EXIT" in script


@each_configured
def test_the_configuration_passes_check(overlay: str, tmp_path: Path, capsys: Any) -> None:
    for template, _, _ in sidecars(overlay):
        file = tmp_path / "sidecar.yaml"
        file.write_text(configuration(overlay, template)[0])
        assert check_file(file) == 0, capsys.readouterr().err


def check_file(file: Path) -> int:
    """As `sidecar check` does."""
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    return check.main(parser.parse_args([str(file)]))


@each_configured
def test_ports_and_probes_agree_with_the_configuration(overlay: str) -> None:
    for template, container, _ in sidecars(overlay):
        snapshot = configuration(overlay, template)[1]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["sidecar-probes"] == snapshot.probes.port
        assert snapshot.probes.host == "0.0.0.0"
        inbound = snapshot.listeners.get("inbound")
        assert ports.get("sidecar-inbound") == (inbound.address.port if inbound else None)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container:
                port = container[probe]["httpGet"]["port"]
                assert ports.get(port, port) == snapshot.probes.port
        assert snapshot.admin.address.host == "127.0.0.1"
        _check_the_app(template, snapshot)


def _check_the_app(template: dict[str, Any], snapshot: Snapshot) -> None:
    (app,) = [item for item in template["spec"]["containers"] if item["name"] == "app"]
    env = {item["name"]: item["value"] for item in app["env"]}
    assert env["http_proxy"] == f"http://{snapshot.listeners['outbound'].address}"
    for port in app.get("ports", []):
        assert port["containerPort"] == snapshot.upstreams["app"].endpoints[0].port


@each_configured
def test_the_configuration_is_mounted_as_a_directory(overlay: str) -> None:
    for _, container, _ in sidecars(overlay):
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert not any("subPath" in mount for mount in mounts.values())
        assert container["args"] == ["run", CONFIG_FILE]
        assert CONFIG_FILE.startswith(mounts["sidecar-config"]["mountPath"] + "/")


@each_configured
def test_the_grace_period_has_room_for_the_whole_end(overlay: str) -> None:
    for template, _, _ in sidecars(overlay):
        drain = configuration(overlay, template)[1].drain
        app_seconds = 5 if "ports" in template["spec"]["containers"][-1] else 0
        needed = app_seconds + drain.delay_seconds + drain.timeout_seconds + 2
        assert template["spec"].get("terminationGracePeriodSeconds", 30) >= needed


@each_overlay
def test_every_pod_is_restricted(overlay: str) -> None:
    """Pod Security's `restricted`, and a read-only root."""
    for name, template in pods(overlay):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"], name
            assert container["resources"]["limits"]["memory"]


@each_overlay
def test_every_image_has_a_version(overlay: str) -> None:
    for name, template in pods(overlay):
        for container in [*(template["spec"].get("initContainers") or []), *template["spec"]["containers"]]:
            tag = container["image"].rpartition(":")[2]
            assert tag not in ("", "latest", container["image"]), name


def test_the_service_leads_to_the_inbound_listener() -> None:
    (service,) = [item for item in documents("base") if item["kind"] == "Service"]
    (template,) = [template for _, template in pods("base")]
    inbound = configuration("base", template)[1].listeners["inbound"].address.port
    assert service["spec"]["ports"][0]["targetPort"] == inbound
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    for kind in ("NetworkPolicy", "PodDisruptionBudget"):
        (item,) = [item for item in documents("base") if item["kind"] == kind]
        selector = item["spec"].get("podSelector") or item["spec"]["selector"]
        assert selector["matchLabels"].items() <= template["metadata"]["labels"].items()


@each_configured
def test_nothing_outside_the_pod_calls_a_sidecars_port_by_its_name(overlay: str) -> None:
    """EndpointSlices have known the named ports of native sidecars since Kubernetes 1.32, network plugins vary."""
    ports = [port for _, container, _ in sidecars(overlay) for port in container["ports"]]
    names = {port["name"] for port in ports}
    numbers = {port["containerPort"] for port in ports}
    for item in documents(overlay):
        called = []
        if item["kind"] == "Service":
            called = [port["targetPort"] for port in item["spec"]["ports"]]
        elif item["kind"] == "NetworkPolicy":
            called = [port["port"] for rule in item["spec"]["ingress"] for port in rule["ports"]]
            if item["metadata"]["name"] == "orders":
                assert set(called) <= numbers
        assert names.isdisjoint(called)


@each_configured
def test_by_hand_and_by_injection_a_pod_gets_the_same_sidecar(overlay: str) -> None:
    """Same probes, hooks, ports, rights, mounts and variables; a Job that nobody calls goes without what only serves
    callers.
    """
    for template, container, place in sidecars(overlay):
        found = plan({}, _bare(template["spec"]), {}, _settings(container, place))
        assert isinstance(found, Plan)
        names = {item["name"] for item in template["spec"]["volumes"]}
        assert {item["name"] for item in found.parts["volumes"]} == {
            one for one in names if one.startswith("sidecar-")
        }
        assert container["image"] == found.container["image"]
        wanted, by_hand = _comparable(found.container), _comparable(container)
        if "readinessProbe" not in container:
            del wanted["readinessProbe"]
            wanted["ports"].pop("sidecar-inbound")
        # what the overlay adds beside
        by_hand["env"] = [item for item in by_hand["env"] if not item["name"].startswith("OTEL_")]
        assert by_hand == wanted


def _bare(spec: dict[str, Any]) -> dict[str, Any]:
    """The pod without its sidecar."""
    containers = [item for item in spec["containers"] if item["name"] != "sidecar"]
    return {**spec, "containers": containers, "initContainers": [], "volumes": []}


def _settings(container: dict[str, Any], place: str) -> Settings:
    has_tls = any(mount["name"] == "sidecar-tls" for mount in container["volumeMounts"])
    return Settings(
        image="sidecar:0.2.0",
        tls_secret="orders-tls" if has_tls else None,
        mode=Mode.NATIVE if place == "initContainers" else Mode.CONTAINER,
        cpu=container["resources"]["requests"]["cpu"],
    )


def _comparable(container: dict[str, Any]) -> dict[str, Any]:
    """Ports by name, and probes by the port's number."""
    copy: dict[str, Any] = json.loads(json.dumps(container))
    copy["volumeMounts"].sort(key=lambda mount: mount["name"])
    copy["ports"] = {item["name"]: item["containerPort"] for item in copy["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe in copy:
            port = copy[probe]["httpGet"]["port"]
            copy[probe]["httpGet"]["port"] = copy["ports"].get(port, port)
    return copy


@each_configured
def test_every_hook_is_a_command_of_the_image(overlay: str) -> None:
    """No shell and no interpreter, and each command line is one that the command takes."""
    for _, container, _ in sidecars(overlay):
        for hook in container["lifecycle"].values():
            program, command, *words = hook["exec"]["command"]
            assert program == "sidecar"
            parser = argparse.ArgumentParser()
            importlib.import_module(f"sidecar.cli.{command}").add_arguments(parser)
            assert parser.parse_args(words).file == CONFIG_FILE


@each_configured
def test_a_hook_that_holds_leaves_the_drain_its_time(overlay: str) -> None:
    for template, container, place in sidecars(overlay):
        words = container["lifecycle"]["preStop"]["exec"]["command"]
        holds = [parse_duration(word.removeprefix("--hold=")) for word in words if word.startswith("--hold=")]
        assert len(holds) == (0 if place == "initContainers" else 1)
        drain = configuration(overlay, template)[1].drain
        needed = sum(holds) + drain.delay_seconds + drain.timeout_seconds + 2
        assert template["spec"]["terminationGracePeriodSeconds"] >= needed


def test_no_overlay_is_injected_twice() -> None:
    settings = Settings(image="sidecar:0.2.0")
    for overlay in CONFIGURED:
        assert inject(built(overlay), overlay, settings).text == built(overlay)


def test_injected_sidecars_have_the_webhooks_own_image() -> None:
    ((_, template),) = pods("webhook")
    (container,) = template["spec"]["containers"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert environment["SIDECAR_IMAGE"] == container["image"] == "sidecar:0.2.0"
    program = argparse.ArgumentParser()
    webhook.add_arguments(program)
    words = [word.replace("$(SIDECAR_IMAGE)", container["image"]) for word in container["args"][1:]]
    options = program.parse_args(words)
    assert container["args"][0] == "webhook"
    assert inject_command.settings_of(options) == Settings(image=container["image"], http_proxy=True)
    assert options.tls_certificate == f"{container['volumeMounts'][0]['mountPath']}/tls.crt"
    assert options.port == container["ports"][0]["containerPort"]


def test_the_webhook_leaves_the_rest_of_the_cluster_alone() -> None:
    """A webhook that fails must not keep pods of other namespaces, or itself, from starting."""
    kinds = {item["kind"]: item for item in documents("webhook")}
    hooks = kinds["MutatingWebhookConfiguration"]["webhooks"]
    for hook in hooks:
        assert hook["rules"] == [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            | {"scope": "Namespaced"}
        ]
        assert hook["sideEffects"] == "None"
        assert hook["timeoutSeconds"] <= 10
    for name, labels in (("shop", {}), ("sidecar-system", {}), ("kube-system", {}), ("shop", {KEY: "false"})):
        assert not selected(hooks, {"kubernetes.io/metadata.name": name, **labels}, {})


KEY = "sidecar.io/inject"


@pytest.mark.parametrize("of_pod", [None, "enabled", "true", "disabled", "false"])
@pytest.mark.parametrize("of_namespace", [None, "enabled", "true", "disabled", "false"])
def test_labels_of_pods_and_namespaces_mean_what_the_command_reads(
    of_namespace: str | None, of_pod: str | None
) -> None:
    """But for a namespace that says nothing: the command is told of the files that it is given."""
    hooks = next(item for item in documents("webhook") if item["kind"] == "MutatingWebhookConfiguration")
    namespace = {} if of_namespace is None else {KEY: of_namespace}
    pod = {} if of_pod is None else {KEY: of_pod}
    is_asked = selected(hooks["webhooks"], {"kubernetes.io/metadata.name": "shop", **namespace}, pod)
    said = of_pod or of_namespace or "false"
    assert is_asked == is_wanted({}, {KEY: said})


def selected(hooks: list[dict[str, Any]], namespace: dict[str, str], pod: dict[str, str]) -> bool:
    """As the API server selects (LabelSelector: a label that is missing is not in any list)."""

    def holds(selector: dict[str, Any], labels: dict[str, str]) -> bool:
        assert set(selector) == {"matchExpressions"}
        found = []
        for one in selector["matchExpressions"]:
            assert one["operator"] in ("In", "NotIn")
            found.append((labels.get(one["key"]) in one["values"]) is (one["operator"] == "In"))
        return all(found)

    return any(
        holds(hook["namespaceSelector"], namespace) and holds(hook["objectSelector"], pod) for hook in hooks
    )


def test_the_webhook_serves_what_the_api_server_calls() -> None:
    kinds = {item["kind"]: item for item in documents("webhook")}
    own = kinds["Service"]["metadata"]
    for hook in kinds["MutatingWebhookConfiguration"]["webhooks"]:
        service = hook["clientConfig"]["service"]
        assert (service["name"], service["namespace"]) == (own["name"], own["namespace"])
        assert (service["path"], kinds["Service"]["spec"]["ports"][0]["port"]) == ("/mutate", 443)
        assert hook["failurePolicy"] == "Fail"
    own = kinds["Namespace"]["metadata"]["labels"]
    assert own.get(KEY) is None
    ((_, template),) = pods("webhook")
    assert template["metadata"]["labels"][KEY] == "disabled"


def test_no_pod_reaches_the_webhook_and_it_reaches_nobody() -> None:
    kinds = {item["kind"]: item for item in documents("webhook")}
    spec = kinds["NetworkPolicy"]["spec"]
    ((_, template),) = pods("webhook")
    assert spec["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert (set(spec["policyTypes"]), spec["egress"]) == ({"Ingress", "Egress"}, [])
    ((source,),) = [rule["from"] for rule in spec["ingress"]]
    assert set(source) == {"ipBlock"}
    assert source["ipBlock"]["except"]
    (port,) = template["spec"]["containers"][0]["ports"]
    assert spec["ingress"][0]["ports"] == [{"port": port["containerPort"], "protocol": "TCP"}]


def test_certificates_are_mounted_where_the_configuration_looks_and_for_the_group_alone() -> None:
    ((template, container, _),) = sidecars("tls")
    (certificate,) = [item for item in documents("tls") if item["kind"] == "Certificate"]
    (volume,) = [item for item in template["spec"]["volumes"] if item["name"] == "sidecar-tls"]
    assert volume["secret"] == {"secretName": certificate["spec"]["secretName"], "defaultMode": 0o440}
    assert template["spec"]["securityContext"]["fsGroup"] == container["securityContext"]["runAsGroup"]
    (mount,) = [item for item in container["volumeMounts"] if item["name"] == "sidecar-tls"]
    snapshot = configuration("tls", template)[1]
    tls = snapshot.listeners["inbound"].tls
    assert tls is not None
    assert files_of(tls) == tuple(f"{mount['mountPath']}/{name}" for name in ("tls.crt", "tls.key", "ca.crt"))
    (service,) = [item for item in documents("tls") if item["kind"] == "Service"]
    assert service["spec"]["ports"] == [{"name": "https", "port": 443, "targetPort": 15006}]
    assert f"{service['metadata']['name']}.orders.svc" in certificate["spec"]["dnsNames"]


def test_replicas_meet_where_the_overlay_has_a_redis_that_nobody_else_reaches() -> None:
    ((template, _, _),) = sidecars("fleet")
    redis = configuration("fleet", template)[1].share.redis
    assert redis is not None
    found = {(item["kind"], item["metadata"]["name"]): item for item in documents("fleet")}
    service = found["Service", "fleet-redis"]
    (port,) = service["spec"]["ports"]
    assert redis.url == f"redis://{service['metadata']['name']}:{port['port']}"
    pod = found["Deployment", "fleet-redis"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert port["targetPort"] == container["ports"][0]["containerPort"]
    policy = found["NetworkPolicy", "fleet-redis"]["spec"]
    assert policy["podSelector"]["matchLabels"] == pod["metadata"]["labels"] == service["spec"]["selector"]
    ((source,),) = [rule["from"] for rule in policy["ingress"]]
    assert source["podSelector"]["matchLabels"] == template["metadata"]["labels"]
