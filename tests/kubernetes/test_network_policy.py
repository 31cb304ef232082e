"""`sidecar inject --network-policy`: in through the sidecar alone, for the pods that have it and for no others."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sidecar.kubernetes.inject import inject
from sidecar.kubernetes.network_policy import network_policies
from sidecar.kubernetes.positions import ManifestError
from tests.deploy.tools import tool
from tests.kubernetes.corpus import MANIFESTS, SETTINGS, read
from tests.kubernetes.test_odd import WEB

each_manifest = pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
TCP = {"protocol": "TCP"}


def policies(text: str, **options: Any) -> list[dict[str, Any]]:
    found = YAML(typ="safe", pure=True).load_all(network_policies(text, "a.yaml", SETTINGS, **options).text)
    return [item for item in found if item is not None]


def test_a_policy_opens_the_inbound_and_the_probes_port_and_nothing_else() -> None:
    assert policies(WEB) == [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "web-sidecar"},
            "spec": {
                "podSelector": {"matchLabels": {"a": "b"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"ports": [{"port": 15006, **TCP}, {"port": 15021, **TCP}]}],
            },
        }
    ]
    assert network_policies(WEB, "a.yaml", SETTINGS).notes == [
        "Deployment web: its pods can be reached at 15006 and 15021 alone, no more at 8080"
    ]


def test_annotations_and_flags_say_which_ports() -> None:
    text = WEB.replace(
        "metadata: {labels: {a: b}}",
        'metadata: {labels: {a: b}, annotations: {sidecar.io/inbound-port: "90"}}',
    )
    other = replace(SETTINGS, probes_port=91)
    ((rule,),) = [
        item["spec"]["ingress"]
        for item in YAML(typ="safe", pure=True).load_all(network_policies(text, "a.yaml", other).text)
    ]
    assert [port["port"] for port in rule["ports"]] == [90, 91]


def test_egress_leaves_out_the_clouds_metadata_and_lets_names_be_asked_for() -> None:
    (found,) = policies(WEB, with_egress=True)
    assert found["spec"]["policyTypes"] == ["Ingress", "Egress"]
    names, everywhere = found["spec"]["egress"]
    assert names == {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, **TCP}]}
    blocks = [item["ipBlock"] for item in everywhere["to"] if "ipBlock" in item]
    assert [("169.254.0.0/16" in block["except"], block["cidr"]) for block in blocks] == [
        (True, "0.0.0.0/0"),
        (False, "::/0"),
    ]


@each_manifest
def test_what_is_injected_gets_a_policy_and_nothing_else_does(path: Path) -> None:
    text = read(path)
    whole = inject(text, path.name, SETTINGS)
    injected = [note.partition(":")[0] for note in whole.notes if ": injected" in note]
    found = network_policies(text, path.name, SETTINGS)
    told = [note.partition(":")[0] for note in found.notes if ": its pods can" in note]
    unlabelled = [note.partition(":")[0] for note in found.notes if "have no labels" in note]
    assert sorted(told + unlabelled) == sorted(injected)
    assert len(policies(text)) == len(told)
    assert network_policies(whole.text, path.name, SETTINGS).text == found.text


@each_manifest
def test_each_policy_selects_the_pods_and_is_in_their_namespace(path: Path) -> None:
    for item in policies(read(path)):
        assert item["spec"]["podSelector"]["matchLabels"]
        assert item["metadata"]["name"].endswith("-sidecar")


def test_every_policy_is_valid(tmp_path: Path) -> None:
    text = "---\n".join(
        found
        for path in MANIFESTS
        if (found := network_policies(read(path), path.name, SETTINGS, with_egress=True).text)
    )
    file = tmp_path / "policies.yaml"
    file.write_text(text)
    done = subprocess.run(
        [tool("kubernetes-validate"), "--strict", "--no-warn", str(file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_pods_without_labels_cannot_be_selected_and_that_is_told() -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a}]}\n"
    found = network_policies(text, "a.yaml", SETTINGS)
    assert found.text == ""
    assert found.notes == [
        "Pod p: no policy: its pods have no labels, by which it could select them; give them one"
    ]


def test_an_annotation_that_makes_no_sense_is_told_with_its_place() -> None:
    text = WEB.replace("{labels: {a: b}}", "{labels: {a: b}, annotations: {sidecar.io/inbound-port: x}}")
    with pytest.raises(
        ManifestError, match=r"a\.yaml:.*Deployment web: sidecar.io/inbound-port: 'x' is no port"
    ):
        policies(text)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--egress"], "give --network-policy too"),
        (["--network-policy", "--uninject"], "leave --uninject"),
        (["--network-policy", "--rewrite-services"], "leave --uninject and --rewrite-services out"),
    ],
)
def test_flags_that_say_two_things_are_told(flags: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "inject", *flags], input=WEB, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_the_command_writes_policies_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "inject", "--network-policy"],
        input=WEB + "---\n" + WEB.replace("name: web", "name: other"), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    found = list(YAML(typ="safe", pure=True).load_all(done.stdout))
    assert [item["kind"] for item in found] == ["NetworkPolicy"] * 2
    assert "can be reached at 15006" in done.stderr
