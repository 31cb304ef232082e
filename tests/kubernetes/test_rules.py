"""What an injection does to an app that has settings of its own, row by row."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sidecar.kubernetes.choices import AppProtocol, ClusterUser, Mode, PullPolicy
from sidecar.kubernetes.inject import Injected, inject, inject_all, uninject
from sidecar.kubernetes.positions import ManifestError
from sidecar.kubernetes.settings import Settings, with_annotations
from tests.kubernetes.corpus import SETTINGS
from tests.kubernetes.test_inject import data, pod_specs

OURS = "localhost,127.0.0.1,::1,169.254.169.254"


def pod(containers: str, more: str = "", metadata: str = "{name: p, labels: {app: p}}") -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata: {metadata}\nspec:\n{more}  containers:\n{containers}"


def service(ports: str, more: str = "", metadata: str = "{name: s}", selector: str = "{app: p}") -> str:
    spec = f"spec:\n  selector: {selector}\n{more}  ports:\n{ports}"
    return f"---\napiVersion: v1\nkind: Service\nmetadata: {metadata}\n{spec}"


def done(text: str, settings: Settings = SETTINGS) -> Injected:
    """Injected, and seen to come out again to the byte."""
    found = inject(text, "x", settings, rewrite_services=True)
    assert uninject(found.text, "x").text == text
    assert inject(found.text, "x", settings, rewrite_services=True).text == found.text
    return found


def spec_of(found: Injected) -> dict[str, Any]:
    return next(pod_specs(data(found.text)))


def env_of(found: Injected, container: str, key: str = "containers") -> dict[str, Any]:
    (item,) = [item for item in spec_of(found)[key] if item["name"] == container]
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in item.get("env") or []}


def sidecar_of(found: Injected) -> dict[str, Any]:
    spec = spec_of(found)
    (item,) = [
        one
        for key in ("initContainers", "containers")
        for one in spec.get(key) or []
        if one["name"] == "sidecar"
    ]
    assert isinstance(item, dict)
    return item


APP = "  - {name: a, image: a, ports: [{containerPort: 8080}]}\n"


def with_env(env: str) -> str:
    return pod(f"  - name: a\n    image: a\n    env:\n{env}")


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_a_proxy_of_the_apps_own_stays_the_only_one_and_is_told(name: str) -> None:
    text = with_env(f"    - {{name: {name}, value: 'http://corp:3128'}}\n")
    found = done(text)
    assert env_of(found, "a") == {name: "http://corp:3128"}
    assert f"a has {name} of its own, so its calls go past the sidecar" in found.notes[0]


def test_the_sidecars_own_proxy_written_by_hand_is_no_foreign_one() -> None:
    found = done(with_env("    - {name: http_proxy, value: 'http://127.0.0.1:15001'}\n"))
    assert "past the sidecar" not in found.notes[0]


@pytest.mark.parametrize(
    "value", [".corp,10.0.0.0/8", "'.corp,10.0.0.0/8'", ">-\n        .corp,10.0.0.0/8", "&n .corp,10.0.0.0/8"]
)
@pytest.mark.parametrize(("name", "other"), [("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")])
def test_exceptions_of_the_apps_own_are_merged_in_either_case_and_told(
    name: str, other: str, value: str
) -> None:
    found = done(with_env(f"    - name: {name}\n      value: {value}\n"))
    env = env_of(found, "a")
    assert env[name] == env[other] == f".corp,10.0.0.0/8,{OURS}"
    assert f"a has {name} of its own, now with {OURS} in it" in found.notes[0]


def test_what_the_app_has_excepted_already_is_not_said_twice() -> None:
    env = env_of(done(with_env("    - {name: no_proxy, value: 'localhost, .corp'}\n")), "a")
    assert env["no_proxy"] == "localhost, .corp,127.0.0.1,::1,169.254.169.254"


@pytest.mark.parametrize(("value", "merged"), [("'*'", "*"), ("''", OURS), ("a, ", f"a,{OURS}")])
def test_odd_lists_of_exceptions(value: str, merged: str) -> None:
    assert env_of(done(with_env(f"    - {{name: NO_PROXY, value: {value}}}\n")), "a")["NO_PROXY"] == merged


def test_a_variable_without_a_value_is_an_empty_list() -> None:
    assert env_of(done(with_env("    - {name: no_proxy}\n    - name: NO_PROXY\n")), "a") == {
        "http_proxy": "http://127.0.0.1:15001", "HTTP_PROXY": "http://127.0.0.1:15001",
        "no_proxy": OURS, "NO_PROXY": OURS,
    }  # fmt: skip


def test_a_reference_is_not_moved_above_what_it_refers_to() -> None:
    found = done(
        with_env("    - {name: POD_NET, value: 10.0.0.0/8}\n    - {name: NO_PROXY, value: $(POD_NET)}\n")
    )
    env = env_of(found, "a")
    assert (env["NO_PROXY"], env["no_proxy"]) == (f"$(POD_NET),{OURS}", OURS)


def test_a_list_from_elsewhere_stays_and_is_told() -> None:
    source = "{configMapKeyRef: {name: c, key: k}}"
    found = done(with_env(f"    - {{name: NO_PROXY, valueFrom: {source}}}\n"))
    assert env_of(found, "a")["NO_PROXY"] == {"configMapKeyRef": {"name": "c", "key": "k"}}
    assert "a has NO_PROXY from elsewhere" in found.notes[0]


def test_variables_of_a_config_map_are_told_of() -> None:
    found = done(pod("  - {name: a, image: a, envFrom: [{configMapRef: {name: c}}]}\n"))
    assert "a takes variables by envFrom" in found.notes[0]


def test_lists_that_are_aliases_are_merged_where_they_are_used() -> None:
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n"
        "  - &a {name: a, image: a, env: &e [{name: NO_PROXY, value: .corp}]}\n"
        "  - {name: b, image: b, env: *e}\n  - {<<: *a, name: c}\n"
    )
    found = done(text)
    assert [env_of(found, name)["NO_PROXY"] for name in "abc"] == [f".corp,{OURS}"] * 3


def test_exceptions_for_grpc_are_merged_too() -> None:
    own = done(with_env("    - {name: no_grpc_proxy, value: db.corp}\n"))
    assert env_of(own, "a")["no_grpc_proxy"] == f"db.corp,{OURS}"
    assert env_of(own, "a")["no_proxy"] == OURS


def test_exceptions_for_grpc_can_be_given() -> None:
    settings = replace(SETTINGS, no_grpc_proxy="spanner.example")
    assert env_of(done(pod(APP), settings), "a")["no_grpc_proxy"] == f"spanner.example,{OURS}"
    assert "no_grpc_proxy" not in env_of(done(pod(APP)), "a")


HTTP = [
    "name: http", "name: http-api", "name: grpc", "name: grpc-api", "name: http2", "name: web", "name: grpc-web",
    "appProtocol: http", "appProtocol: kubernetes.io/h2c", "appProtocol: kubernetes.io/ws",
    "name: tcp, appProtocol: http",
]  # fmt: skip
NOT_HTTP = [
    "name: https", "name: tls-api", "name: tcp", "name: tcp-http", "name: mysql", "name: redis", "name: mongodb",
    "name: postgres", "name: amqp", "name: kafka", "appProtocol: https", "appProtocol: mysql",
    "appProtocol: kubernetes.io/wss", "name: http, appProtocol: tcp",
]  # fmt: skip


@pytest.mark.parametrize("says", HTTP)
def test_a_port_of_http_by_name_or_app_protocol_goes_to_the_sidecar(says: str) -> None:
    found = done(pod(APP) + service(f"  - {{port: 80, targetPort: 8080, {says}}}\n"))
    assert data(found.text)[1]["spec"]["ports"][0]["targetPort"] == 15006
    assert "goes to the sidecar's 15006 now, not to 8080" in found.notes[1]
    assert found.notes[1].startswith("Service s: port 80")


@pytest.mark.parametrize("says", NOT_HTTP)
def test_a_port_of_anything_else_stays_and_is_told(says: str) -> None:
    found = done(pod(APP) + service(f"  - {{port: 80, targetPort: 8080, {says}}}\n"))
    assert data(found.text)[1]["spec"]["ports"][0]["targetPort"] == 8080
    assert "still goes to 8080: its " in found.notes[1]


@pytest.mark.parametrize("number", [25, 443, 3306, 5432, 5672, 6379, 8443, 9092, 11211, 27017])
@pytest.mark.parametrize("which", ["app", "service"])
def test_a_port_that_is_known_by_its_number_stays(number: int, which: str) -> None:
    port = number if which == "service" else 80
    goes_to = number if which == "app" else 8080
    text = pod(f"  - {{name: a, image: a, ports: [{{containerPort: {goes_to}}}]}}\n")
    found = done(
        text + service(f"  - {{port: {port}, targetPort: {goes_to}}}\n"), replace(SETTINGS, app_port=goes_to)
    )
    assert data(found.text)[1]["spec"]["ports"][0]["targetPort"] == goes_to
    assert str(number) in found.notes[1]


def test_a_users_opaque_ports_win_over_every_name() -> None:
    text = pod(APP) + service("  - {name: http, port: 80, targetPort: 8080}\n")
    found = done(text, replace(SETTINGS, opaque_ports=(8080,)))
    assert data(found.text)[1]["spec"]["ports"][0]["targetPort"] == 8080
    assert "8080 is among the opaque ports" in found.notes[1]
    annotated = with_annotations(SETTINGS, {"sidecar.io/opaque-ports": "8080, 9000"})
    assert annotated.opaque_ports == (8080, 9000)


def test_services_are_found_in_other_files_of_the_call() -> None:
    texts = [(service("  - {port: 80, targetPort: 8080}\n"), "s.yaml"), (pod(APP), "p.yaml")]
    first, second = inject_all(texts, SETTINGS, rewrite_services=True)
    assert data(first.text)[0]["spec"]["ports"][0]["targetPort"] == 15006
    assert [uninject(one.text, "x").text for one in (first, second)] == [text for text, _ in texts]


@pytest.mark.parametrize("metadata", ["{name: s, namespace: default}", "{name: s}"])
@pytest.mark.parametrize(
    "of_pod", ["{name: p, labels: {app: p}, namespace: default}", "{name: p, labels: {app: p}}"]
)
def test_no_namespace_is_the_default_one(metadata: str, of_pod: str) -> None:
    text = pod(APP, metadata=of_pod) + service("  - {port: 80, targetPort: 8080}\n", metadata=metadata)
    assert data(done(text).text)[1]["spec"]["ports"][0]["targetPort"] == 15006


def test_another_namespace_is_another_one() -> None:
    text = pod(APP) + service("  - {port: 80, targetPort: 8080}\n", metadata="{name: s, namespace: other}")
    found = done(text)
    assert data(found.text)[1]["spec"]["ports"][0]["targetPort"] == 8080
    assert len(found.notes) == 1


@pytest.mark.parametrize("no", ["false", "disabled", "Disabled"])
@pytest.mark.parametrize("where", ["annotations", "labels"])
def test_a_service_is_opted_out_as_a_pod_is(no: str, where: str) -> None:
    metadata = f"{{name: s, {where}: {{sidecar.io/inject: '{no}'}}}}"
    found = done(pod(APP) + service("  - {port: 80, targetPort: 8080}\n", metadata=metadata))
    assert data(found.text)[1]["spec"]["ports"][0]["targetPort"] == 8080
    assert found.notes[1] == 'Service s: left as it is: sidecar.io/inject is "false"'


def test_an_annotation_of_a_service_that_says_neither_is_refused() -> None:
    metadata = "{name: s, annotations: {sidecar.io/inject: maybe}}"
    with pytest.raises(ManifestError, match=r"Service s: sidecar.io/inject: 'maybe' is neither"):
        done(pod(APP) + service("  - {port: 80}\n", metadata=metadata))


def test_a_service_of_pods_with_and_without_the_sidecar_stays() -> None:
    bare = pod(APP, "  hostNetwork: true\n", "{name: q, labels: {app: p}}")
    found = done(f"{pod(APP)}---\n{bare}" + service("  - {port: 80, targetPort: 8080}\n"))
    assert data(found.text)[2]["spec"]["ports"][0]["targetPort"] == 8080
    assert found.notes[2] == "Service s: left as it is: it selects Pod q too, which has no sidecar"


def test_a_headless_service_and_another_port_of_the_app_stay() -> None:
    headless = service("  - {port: 80, targetPort: 8080}\n", "  clusterIP: None\n")
    other = service("  - {port: 9000, name: http-admin}\n", metadata="{name: t}")
    found = done(pod(APP) + headless + other)
    assert "it is headless" in found.notes[1]
    assert "port 9000 (http-admin) still goes to 9000: the app's port is 8080" in found.notes[2]


@pytest.mark.parametrize(
    ("ports", "services", "protocol"),
    [
        ("{name: grpc, containerPort: 7000}", "", "http2"),
        ("{name: http, containerPort: 7000}", "  - {name: grpc, port: 7000}\n", None),
        ("{containerPort: 7000}", "  - {name: grpc, port: 7000}\n", "http2"),
        ("{name: api, containerPort: 7000}", "  - {port: 80, targetPort: api, appProtocol: kubernetes.io/h2c}\n",
         "http2"),
        ("{containerPort: 7000}", "  - {name: grpc, port: 7001}\n", None),
        ("{containerPort: 7000}", "  - {port: 7000}\n", None),
    ],
)  # fmt: skip
def test_what_the_app_speaks_reaches_the_configuration(
    ports: str, services: str, protocol: str | None
) -> None:
    text = pod(f"  - {{name: a, image: a, ports: [{ports}]}}\n") + (service(services) if services else "")
    found = done(text)
    env = {item["name"]: item.get("value") for item in sidecar_of(found)["env"]}
    assert env.get("APP_PROTOCOL") == protocol
    assert ("needs `protocol: ${APP_PROTOCOL:-http1}`" in found.notes[0]) == (protocol == "http2")


def test_a_probe_by_grpc_says_what_the_app_speaks() -> None:
    containers = (
        "  - {name: a, image: a, ports: [{containerPort: 7000}], livenessProbe: {grpc: {port: 7000}}}\n"
    )
    env = {item["name"]: item.get("value") for item in sidecar_of(done(pod(containers)))["env"]}
    assert env["APP_PROTOCOL"] == "http2"


@pytest.mark.parametrize(
    ("containers", "number", "told"),
    [
        ("  - {name: a, image: a, ports: [{containerPort: 8080}]}\n", 8080, "its app is taken to listen at 8080 ("),
        (
            "  - {name: a, image: a, ports: [{containerPort: 9000}, {containerPort: 8080, name: http}]}\n",
            8080, "at 8080, not at 9000",
        ),
        (
            "  - {name: a, image: a, ports: [{containerPort: 9090, name: http-metrics}, {containerPort: 8080}]}\n",
            8080, "at 8080, not at 9090",
        ),
        (
            "  - {name: kube-rbac-proxy, image: x, ports: [{containerPort: 8080}]}\n"
            "  - {name: a, image: a, ports: [{containerPort: 8081}]}\n",
            8081, "at 8081, not at 8080",
        ),
        (
            "  - {name: guard, image: 'quay.io/brancz/kube-rbac-proxy:v0.18', ports: [{containerPort: 9443}]}\n",
            None, "no port of its app is known: 9443 is not for HTTP from callers",
        ),
        ("  - {name: a, image: a, ports: [{containerPort: 8443}]}\n", None, "no port of its app is known: 8443"),
        ("  - {name: a, image: a, ports: [{containerPort: 8080, name: https}]}\n", None, "no port of its app"),
        ("  - {name: a, image: a, ports: [{containerPort: 6379}]}\n", None, "no port of its app is known: 6379"),
        ("  - {name: a, image: a}\n", None, "no port of its app is known: no container tells of one"),
    ],
)  # fmt: skip
def test_the_apps_port_is_guessed_with_care_and_told(containers: str, number: int | None, told: str) -> None:
    found = done(pod(containers))
    env = {item["name"]: item.get("value") for item in sidecar_of(found)["env"]}
    assert env.get("APP_PORT") == (None if number is None else str(number))
    assert told in found.notes[0]
    assert "sidecar.io/app-port says it" in found.notes[0]


def test_a_port_that_was_said_is_no_guess() -> None:
    text = pod(APP, metadata="{name: p, annotations: {sidecar.io/app-port: '9000'}}")
    assert done(text).notes == ["Pod p: injected"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("memory", "64MB", "memory: '64MB' is no quantity of memory, such as 128Mi; write 64M"),
        ("memory", "64mib", "; write 64Mi"),
        ("memory", "100m", "is no quantity of memory"),
        ("memory", "0", "is no quantity of memory"),
        ("cpu", "1core", "cpu: '1core' is no quantity of CPU, such as 100m or 1; write 1"),
        ("cpu", "128Mi", "is no quantity of CPU"),
        ("cpu", "0m", "is no quantity of CPU"),
        ("cpu-limit", "2 cores", "is no quantity of CPU, such as 500m or 1; write 2"),
        ("image", "", "image: '' is no reference of an image"),
        ("image-pull-policy", "always", "'always' is neither Always, IfNotPresent nor Never"),
        ("pull-secrets", "a b", "pull-secrets: 'a b' is no name of a Secret"),
        ("run-as-user", "0", "run-as-user 0: a user from 1 on"),
        ("run-as-user", "root", "'root' is no user: a number, or unset"),
        ("env", "A", "'A' is no variable; write NAME=VALUE,NAME=VALUE"),
        ("env", "A B=1", "'A B' is no name of a variable"),
        ("env", "A=\x07", "the value of A holds what cannot be printed"),
        ("opaque-ports", "redis", "'redis' is no port"),
        ("opaque-ports", "0", "opaque-ports 0: a port is from 1 to 65535"),
        ("opaque-ports", ",".join(["1"] * 51), "at most 50 items"),
        ("env", ",".join(["A=1"] * 51), "at most 50 variables"),
        ("app-protocol", "grpc", "'grpc' is neither http1 nor http2"),
    ],
)
def test_values_are_checked_and_the_remedy_is_told(key: str, value: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        with_annotations(SETTINGS, {f"sidecar.io/{key}": value})
    assert message in str(caught.value)


def test_kubectl_logs_means_the_app_where_the_sidecar_is_the_first_container() -> None:
    legacy = replace(SETTINGS, mode=Mode.CONTAINER)
    key = "kubectl.kubernetes.io/default-container"
    assert data(done(pod(APP), legacy).text)[0]["metadata"]["annotations"][key] == "a"
    own = pod(APP, metadata=f"{{name: p, annotations: {{{key}: b}}}}")
    assert data(done(own, legacy).text)[0]["metadata"]["annotations"][key] == "b"
    assert key not in data(done(pod(APP)).text)[0]["metadata"]["annotations"]


@pytest.mark.parametrize(
    "text",
    [
        pod("  - {name: a, image: '{{ .Values.image }}'}\n"),
        pod("  - name: a\n    image: a\n    ports: [{containerPort: '{{ .Values.port }}'}]\n"),
        pod(APP, metadata="{name: '{{ .Release.Name }}'}"),
        pod(APP, metadata="{name: p, labels: {app: '{{ $name }}'}}"),
        pod(APP, "  terminationGracePeriodSeconds: {{ .Values.grace }}\n"),
        pod(APP)
        + service("  - {port: '{{ .Values.port }}', targetPort: 8080}\n  - {port: 80, targetPort: 8080}\n"),
    ],
)
def test_what_is_still_to_be_rendered_is_refused(text: str) -> None:
    with pytest.raises(
        ManifestError, match="this is still to be rendered: a Helm chart is rendered first, by `helm"
    ):
        inject(text, "x", SETTINGS, rewrite_services=True)


def test_braces_that_a_program_reads_are_none() -> None:
    text = (
        pod(
            "  - name: a\n    image: a\n    args: ['--format={{.Name}}']\n    env: [{name: Q, value: '{{x}}'}]\n",
            metadata="{name: p, annotations: {vault/template: '{{- with secret }}'}}",
        )
        + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
        + "data: {rule: '{{ $labels.pod }}', name: '{{x}}'}\n"
    )
    assert done(text).notes[0].startswith("Pod p: injected")


def test_a_pod_knows_its_nodes_address() -> None:
    env = sidecar_of(done(pod(APP)))["env"]
    assert {"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}} in env


def test_more_variables_win_over_known_ones() -> None:
    settings = replace(SETTINGS, env=(("TEAM", "a,b"), ("APP_PORT", "1"), ("NODE_NAME", "n")))
    env = [(item["name"], item.get("value")) for item in sidecar_of(done(pod(APP), settings))["env"]]
    assert {("TEAM", "a,b"), ("APP_PORT", "1"), ("NODE_NAME", "n")} <= set(env)
    assert len(dict(env)) == len(env)
    annotated = with_annotations(SETTINGS, {"sidecar.io/env": "A=1,2,B_C=x=y"})
    assert annotated.env == (("A", "1,2"), ("B_C", "x=y"))


def test_pull_policy_cpu_limit_and_user_are_the_containers() -> None:
    settings = replace(SETTINGS, image_pull_policy=PullPolicy.NEVER, cpu_limit="500m", run_as_user=1000)
    container = sidecar_of(done(pod(APP), settings))
    assert container["imagePullPolicy"] == "Never"
    assert container["resources"]["limits"] == {"cpu": "500m", "memory": "128Mi"}
    assert container["securityContext"]["runAsUser"] == container["securityContext"]["runAsGroup"] == 1000
    assert "cpu" not in sidecar_of(done(pod(APP)))["resources"]["limits"]


def test_openshift_may_give_the_user() -> None:
    settings = replace(SETTINGS, run_as_user=ClusterUser.UNSET)
    context = sidecar_of(done(pod(APP), settings))["securityContext"]
    assert "runAsUser" not in context
    assert context["runAsNonRoot"] is True
    assert with_annotations(SETTINGS, {"sidecar.io/run-as-user": "unset"}).run_as_user is ClusterUser.UNSET


@pytest.mark.parametrize(
    ("written", "names"),
    [("", ["a", "b"]), ("  imagePullSecrets: [{name: b}, {name: c}]\n", ["a", "b", "c"])],
)
def test_pull_secrets_are_added_once(written: str, names: list[str]) -> None:
    found = done(pod(APP, written), replace(SETTINGS, pull_secrets=("a", "b", "a")))
    assert [item["name"] for item in spec_of(found)["imagePullSecrets"]] == names


TWO = "  - {name: a, image: a}\n  - {name: b, image: b}\n"


def test_the_proxy_may_be_for_some_containers_alone() -> None:
    found = done(pod(TWO), replace(SETTINGS, proxy_containers=("b",)))
    assert (env_of(found, "a"), len(env_of(found, "b"))) == ({}, 4)
    told = "proxy-containers: there is no container c, only a, b"
    by_flag = done(pod(TWO), replace(SETTINGS, proxy_containers=("b", "c")))
    assert (env_of(by_flag, "a"), len(env_of(by_flag, "b"))) == ({}, 4)
    assert told in by_flag.notes[0]
    with pytest.raises(ManifestError, match=told):
        done(pod(TWO, metadata="{name: p, annotations: {sidecar.io/proxy-containers: c}}"))


def test_init_containers_may_have_the_proxy_too() -> None:
    text = pod(APP, "  initContainers:\n  - {name: i, image: i}\n")
    assert env_of(done(text), "i", "initContainers") == {}
    found = done(text, replace(SETTINGS, proxy_init=True))
    assert len(env_of(found, "i", "initContainers")) == 4
    legacy = done(text, replace(SETTINGS, proxy_init=True, mode=Mode.CONTAINER))
    assert env_of(legacy, "i", "initContainers") == {}
    assert "its init containers get no proxy" in legacy.notes[0]


def test_an_app_protocol_can_be_said() -> None:
    env = {
        item["name"]: item.get("value")
        for item in sidecar_of(done(pod(APP), replace(SETTINGS, app_protocol=AppProtocol.HTTP2)))["env"]
    }
    assert env["APP_PROTOCOL"] == "http2"


@pytest.mark.parametrize("said", ["disabled", "false"])
def test_a_namespace_can_say_no_for_its_pods(said: str) -> None:
    labels = f"labels: {{sidecar.io/inject: '{said}'}}"
    namespace = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: n, {labels}}}\n---\n"
    there = done(namespace + pod(APP, metadata="{name: p, namespace: n}"))
    assert there.notes == ['Pod p: left as it is: sidecar.io/inject is "false"']
    own = "{name: p, namespace: n, labels: {sidecar.io/inject: enabled}}"
    assert done(namespace + pod(APP, metadata=own)).notes[0].startswith("Pod p: injected")
    assert done(namespace + pod(APP)).notes[0].startswith("Pod p: injected")


def test_many_services_are_not_compared_with_many_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each Service looks at the pods of one of its labels."""
    from sidecar.kubernetes import services

    looked = 0
    near = services.Backends.near

    def counted(self: Any, *key: Any) -> Any:
        nonlocal looked
        found = near(self, *key)
        looked += len(found)
        return found

    monkeypatch.setattr(services.Backends, "near", counted)
    count = 60
    texts = [
        pod(APP, metadata=f"{{name: p{i}, labels: {{app: p{i}}}}}")
        + service("  - {port: 80, targetPort: 8080}\n", metadata=f"{{name: s{i}}}", selector=f"{{app: p{i}}}")
        for i in range(count)
    ]
    found = inject("---\n".join(texts), "x", SETTINGS, rewrite_services=True)
    assert looked == count
    assert found.text.count("targetPort: 15006") == count


def test_the_record_is_json() -> None:
    text = pod(APP, "  initContainers:\n  - {name: i, image: i}\n")
    settings = replace(SETTINGS, proxy_init=True, pull_secrets=("a",))
    record = json.loads(data(done(text, settings).text)[0]["metadata"]["annotations"]["sidecar.io/status"])
    assert set(record) == {"mode", "initEnv", "env", "pullSecrets", "created"}
