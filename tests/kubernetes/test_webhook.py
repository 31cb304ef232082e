"""The admission webhook: by real TLS on loopback, and its patch against what `inject` writes."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from sidecar.kubernetes.admission import review, told
from sidecar.kubernetes.settings import STATUS
from sidecar.kubernetes.webhook import TlsFiles, Webhook
from tests.kubernetes.corpus import MANIFESTS, SETTINGS, injected, read
from tests.support.ports import free_ports

NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
"""For openssl: made, and shaken hands with, in a fraction of what RSA takes."""


def make_certificate(folder: Path, name: str) -> TlsFiles:
    """A self-signed certificate for 127.0.0.1, written over what is there."""
    files = TlsFiles(folder / "tls.crt", folder / "tls.key")
    subprocess.run(
        f"openssl req -x509 {NEW_KEY} -days 1 -subj /CN={name}"
        f" -addext subjectAltName=IP:127.0.0.1 -out {files.certificate} -keyout {files.key}".split(),
        check=True,
        capture_output=True,
    )
    return files


@asynccontextmanager
async def serving(files: TlsFiles) -> AsyncIterator[Webhook]:
    webhook = Webhook(SETTINGS, files, poll_seconds=0.02)
    await webhook.start("127.0.0.1", 0)
    try:
        yield webhook
    finally:
        await webhook.stop()


async def post(port: int, body: bytes, certificate: Path) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(certificate))
    url = f"https://127.0.0.1:{port}/mutate"
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            url, data=io.BytesIO(body), ssl=context, headers={"Content-Type": "application/json"}
        ) as answer,
    ):
        return answer.status, await answer.read()


def admission(pod: Any) -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "705ab4f5", "operation": "CREATE", "object": pod},
    }


def patched(pod: Any, answer: dict[str, Any]) -> Any:
    """Apply an answer's patch, as the API server does; only `add` and `move` are needed."""
    response = answer["response"]
    assert response["allowed"] is True
    result = json.loads(json.dumps(pod))
    for operation in json.loads(base64.b64decode(response.get("patch", "W10="))):
        value = operation.get("value")
        if operation["op"] == "move":
            source, last = _place(result, operation["from"])
            value = source.pop(int(last))
        else:
            assert operation["op"] == "add"
        at, last = _place(result, operation["path"])
        if isinstance(at, list):
            at.insert(len(at) if last == "-" else int(last), value)
        else:
            at[last] = value
    return result


def _place(result: Any, path: str) -> tuple[Any, str]:
    """What a pointer points into, and its last part (RFC 6901)."""
    *parts, last = [part.replace("~1", "/") for part in path.split("/")[1:]]
    for part in parts:
        result = result[int(part)] if isinstance(result, list) else result[part]
    return result, last


def pods(path: Path) -> Iterator[tuple[Any, Any]]:
    """Every pod of a manifest, and every template as the pod that a controller makes of it: before and after."""
    return zip(_templates(read(path)), _templates(injected(path)), strict=True)


def _templates(text: str) -> list[Any]:
    found: list[Any] = []

    def walk(item: Any) -> None:
        if isinstance(item, dict):
            spec = item.get("spec")
            if isinstance(spec, dict) and isinstance(spec.get("containers"), list):
                found.append({"kind": "Pod", "metadata": item.get("metadata") or {}, "spec": spec})
            for value in item.values():
                walk(value)
        elif isinstance(item, list):
            for value in item:
                walk(value)

    for document in YAML(typ="safe", pure=True).load_all(text.removeprefix("\ufeff")):
        if isinstance(document, dict) and document.get("kind") not in (None, "Secret", "ConfigMap", "Widget"):
            walk(document)
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_the_patch_gives_what_injection_writes(path: Path) -> None:
    for before, after in pods(path):
        by_patch = patched(before, review(admission(before), SETTINGS))
        if STATUS not in (after["metadata"].get("annotations") or {}):
            # opted out on the workload, which a webhook for pods does not see, or left alone by both
            assert by_patch == before or STATUS not in (before["metadata"].get("annotations") or {})
            continue
        for item in (by_patch, after):
            item["metadata"]["annotations"].pop(STATUS)
            _without_what_services_say(item)
        if not _tuned_on_the_workload(after):
            assert by_patch == after


def _without_what_services_say(pod: Any) -> None:
    """A webhook for pods sees no Services, which say what a port speaks."""
    for container in (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])):
        if container.get("name") == "sidecar" and "env" in container:
            container["env"] = [item for item in container["env"] if item["name"] != "APP_PROTOCOL"]


def _tuned_on_the_workload(pod: Any) -> bool:
    annotations = pod["metadata"]["annotations"]
    return annotations.get("sidecar.io/config-map") == "tuned-config"


async def test_a_pod_is_patched_by_tls(tmp_path: Path) -> None:
    files = make_certificate(tmp_path, "one")
    pod = {"metadata": {"generateName": "a-"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    async with serving(files) as webhook:
        status, body = await post(webhook.port, json.dumps(admission(pod)).encode(), files.certificate)
    answer = json.loads(body)
    assert (status, answer["response"]["uid"]) == (200, "705ab4f5")
    assert answer["response"]["patchType"] == "JSONPatch"
    assert patched(pod, answer)["spec"]["initContainers"][0]["restartPolicy"] == "Always"


async def test_a_new_certificate_is_taken_without_a_restart(tmp_path: Path) -> None:
    files = make_certificate(tmp_path, "one")
    body = json.dumps(admission({"spec": {"containers": []}})).encode()
    async with serving(files) as webhook:
        assert (await post(webhook.port, body, files.certificate))[0] == 200
        old = tmp_path / "old.crt"
        old.write_bytes(files.certificate.read_bytes())
        make_certificate(tmp_path, "two")
        async with asyncio.timeout(100):
            while not await _is_trusted(webhook, body, files.certificate):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert not await _is_trusted(webhook, body, old)


async def test_a_broken_certificate_leaves_the_old_one(tmp_path: Path, caplog: Any) -> None:
    files = make_certificate(tmp_path, "one")
    good = tmp_path / "good.crt"
    good.write_bytes(files.certificate.read_bytes())
    body = json.dumps(admission({"spec": {"containers": []}})).encode()
    async with serving(files) as webhook:
        files.certificate.write_text("nothing")
        async with asyncio.timeout(100):
            while "the old one stays" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await _is_trusted(webhook, body, good)


@pytest.mark.process
async def test_the_command_takes_a_secret_that_the_kubelet_swaps_and_ends_by_sigterm(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make_certificate(tmp_path / name, name)
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "..data").symlink_to(tmp_path / "one")
    for name in ("tls.crt", "tls.key"):
        (mount / name).symlink_to(Path("..data") / name)
    (port,) = free_ports(1)
    files = ["--tls-certificate", str(mount / "tls.crt"), "--tls-key", str(mount / "tls.key")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", "webhook", "--host", "127.0.0.1", "--port", str(port)),
        *(*files, "--tls-poll", "0.05", "--image", "registry/sidecar:1"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}}
        body = json.dumps(admission(pod)).encode()
        await _answers(port, body, tmp_path / "one" / "tls.crt")
        (mount / "..new").symlink_to(tmp_path / "two")
        (mount / "..new").rename(mount / "..data")
        answer = await _answers(port, body, tmp_path / "two" / "tls.crt")
        assert patched(pod, json.loads(answer))["spec"]["initContainers"][0]["image"] == "registry/sidecar:1"
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _answers(port: int, body: bytes, certificate: Path) -> bytes:
    """Wait until it does, with this certificate."""
    async with asyncio.timeout(100):
        while True:
            try:
                status, answer = await post(port, body, certificate)
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.05)
            else:
                assert status == 200
                return answer


async def _is_trusted(webhook: Webhook, body: bytes, certificate: Path) -> bool:
    try:
        return (await post(webhook.port, body, certificate))[0] == 200
    except aiohttp.ClientError:
        return False


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"{}", b"null", b'{"apiVersion":"admission.k8s.io/v1beta1"}', b"\xff",
        b'{"apiVersion":"admission.k8s.io/v1","request":{"uid":7}}', b"[" * 100_000,
    ],
    ids=lambda body: body[:30].decode(errors="replace") or "empty",
)  # fmt: skip
async def test_what_is_no_review_is_a_bad_request(tmp_path: Path, body: bytes) -> None:
    files = make_certificate(tmp_path, "one")
    async with serving(files) as webhook:
        assert (await post(webhook.port, body, files.certificate))[0] == 400


def test_a_pod_that_asks_for_the_impossible_is_refused_with_the_reason() -> None:
    pod = {
        "metadata": {"annotations": {"sidecar.io/mode": "daemon"}},
        "spec": {"containers": [{"name": "a"}]},
    }
    response = review(admission(pod), SETTINGS)["response"]
    assert response["allowed"] is False
    assert "neither native nor container" in response["status"]["message"]


def test_a_pod_with_the_sidecar_passes_unchanged() -> None:
    pod: Any = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}}
    once = patched(pod, review(admission(pod), SETTINGS))
    assert "patch" not in review(admission(once), SETTINGS)["response"]


def with_proxy(pod: Any) -> Any:
    return patched(pod, review(admission(pod), SETTINGS))


def names_of_env(pod: Any, index: int, key: str = "containers") -> list[str]:
    return [item["name"] for item in pod["spec"][key][index].get("env") or []]


PROXY = ["http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"]


def test_a_container_that_another_webhook_added_later_gets_the_proxy_too() -> None:
    once = with_proxy({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "env": []}]}})
    added = {"name": "b", "env": [{"name": "NO_PROXY", "value": ".corp"}]}
    once["spec"]["containers"].append(added)
    again = with_proxy(once)
    assert names_of_env(again, 1) == ["http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"]
    assert again["spec"]["containers"][1]["env"][3]["value"].startswith(".corp,localhost")
    assert again["spec"]["containers"][0] == once["spec"]["containers"][0]
    record = json.loads(again["metadata"]["annotations"][STATUS])
    assert record["env"] == {"a": PROXY, "b": ["http_proxy", "HTTP_PROXY", "no_proxy"]}
    assert with_proxy(again) == again


def test_what_is_added_later_has_the_port_of_the_sidecar_that_is_there() -> None:
    pod = {
        "metadata": {"annotations": {"sidecar.io/outbound-port": "16001"}},
        "spec": {"containers": [{"name": "a"}]},
    }
    once = with_proxy(pod)
    del once["metadata"]["annotations"]["sidecar.io/outbound-port"]
    once["spec"]["containers"].append({"name": "b"})
    assert with_proxy(once)["spec"]["containers"][1]["env"][0]["value"] == "http://127.0.0.1:16001"


def test_a_pod_without_the_proxy_gets_none_later() -> None:
    quiet = replace(SETTINGS, http_proxy=False)
    pod: Any = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}}
    once = patched(pod, review(admission(pod), quiet))
    once["spec"]["containers"].append({"name": "b"})
    assert with_proxy(once) == once


def test_init_containers_that_end_before_the_sidecar_get_none_later() -> None:
    settings = replace(SETTINGS, proxy_init=True)
    pod: Any = {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]},
    }
    once = patched(pod, review(admission(pod), settings))
    assert names_of_env(once, 1, "initContainers") == PROXY
    once["spec"]["initContainers"].insert(0, {"name": "before"})
    once["spec"]["initContainers"].append({"name": "behind"})
    again = patched(once, review(admission(once), settings))
    assert [names_of_env(again, at, "initContainers") for at in (0, 2, 3)] == [[], PROXY, PROXY]


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"hostNetwork": True}, "it uses the host's network"),
        ({"os": {"name": "windows"}}, "it runs on Windows"),
        ({"initContainers": [{"name": "sidecar"}]}, "it has a container named sidecar of its own"),
    ],
)
def test_a_pod_that_cannot_have_one_passes_with_a_warning_that_says_why(spec: Any, why: str) -> None:
    pod: Any = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}], **spec}}
    answer = review(admission(pod), SETTINGS)
    assert answer["response"]["allowed"] is True
    assert "patch" not in answer["response"]
    (warning,) = answer["response"]["warnings"]
    assert warning.startswith(f"sidecar: left as it is: {why}")
    assert told(answer) == warning.removeprefix("sidecar: ")


def test_a_pod_that_wants_none_passes_without_a_word() -> None:
    pod: Any = {
        "metadata": {"labels": {"sidecar.io/inject": "false"}},
        "spec": {"containers": [{"name": "a"}]},
    }
    assert review(admission(pod), SETTINGS)["response"] == {"uid": "705ab4f5", "allowed": True}


@pytest.mark.parametrize("status", ["{}", "", "true", '{"env": {"a": []}}', '{"env": 1}', "["])
def test_the_status_annotation_alone_lets_no_pod_pass(status: str) -> None:
    pod = {"metadata": {"annotations": {STATUS: status}}, "spec": {"containers": [{"name": "a"}]}}
    result = with_proxy(pod)
    assert [item["name"] for item in result["spec"]["initContainers"]] == ["sidecar"]
    assert json.loads(result["metadata"]["annotations"][STATUS])["mode"] == "native"


@pytest.mark.parametrize("status", ["{}", "", "true", '{"env": 1}', "[" * 9999])
def test_a_status_that_nobody_of_us_wrote_completes_nothing(status: str) -> None:
    pod: Any = {
        "metadata": {"annotations": {STATUS: status}},
        "spec": {"containers": [{"name": "sidecar"}, {"name": "b"}]},
    }
    assert with_proxy(pod) == pod


@pytest.mark.parametrize("where", ["annotations", "labels"])
@pytest.mark.parametrize("no", ["false", "disabled", "Disabled"])
def test_a_pod_is_opted_out_as_by_the_command(where: str, no: str) -> None:
    pod: Any = {"metadata": {where: {"sidecar.io/inject": no}}, "spec": {"containers": [{"name": "a"}]}}
    assert with_proxy(pod) == pod


async def test_every_decision_is_logged_with_the_pod(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = make_certificate(tmp_path, "one")
    containers = {"containers": [{"name": "a"}]}
    reviews = [
        admission({"metadata": {"generateName": "web-\nx"}, "spec": containers}),
        admission(
            {"metadata": {"name": "off", "labels": {"sidecar.io/inject": "false"}}, "spec": containers}
        ),
        admission({"metadata": {"name": "odd", "annotations": {"sidecar.io/mode": "x"}}, "spec": containers}),
    ]
    caplog.set_level("INFO", "sidecar.kubernetes")
    async with serving(files) as webhook:
        for item in reviews:
            item["request"]["namespace"] = "shop"
            assert (await post(webhook.port, json.dumps(item).encode(), files.certificate))[0] == 200
    assert [record.getMessage() for record in caplog.records if record.name == "sidecar.kubernetes"] == [
        r"pod 'shop/web-\nx': injected",
        "pod 'shop/off': left as it is",
        "pod 'shop/odd': refused: sidecar: sidecar.io/mode: 'x' is neither native nor container",
    ]


_KEYS = st.sampled_from(
    [
        "name",
        "env",
        "ports",
        "containerPort",
        "annotations",
        "labels",
        "sidecar.io/inject",
        "sidecar.io/http-proxy",
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70000) | st.sampled_from(["", "a", "sidecar", "true"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(
    metadata=_JSON,
    spec=st.dictionaries(
        st.sampled_from(["containers", "initContainers", "volumes", "hostNetwork", "os", "nodeSelector"])
        | st.just("terminationGracePeriodSeconds"),
        _JSON | st.lists(st.dictionaries(_KEYS, _JSON, max_size=3), max_size=3),
    ),
)
@example(None, {"containers": [{"name": None, "env": [{"name": []}]}, {}]})
@example(None, {"containers": [{"name": "a", "env": [{"name": {}}, {"name": "HTTP_PROXY"}]}, {"name": []}]})
@example({"annotations": {"sidecar.io/app-port": "80"}}, {"containers": [{"name": {}, "ports": []}]})
def test_whatever_a_pod_looks_like_there_is_an_answer_whose_patch_applies(metadata: Any, spec: Any) -> None:
    pod = {"metadata": metadata, "spec": spec}
    answer = review(admission(pod), SETTINGS)
    if answer["response"]["allowed"]:
        result = patched(pod, answer)
        assert ("patch" in answer["response"]) is (result != pod)


@pytest.mark.parametrize(
    "pod", [None, [], "x", {}, {"spec": None}, {"spec": []}, {"kind": "Node", "spec": {}}]
)
def test_what_is_no_pod_passes_unchanged(pod: Any) -> None:
    assert review(admission(pod), SETTINGS)["response"] == {"uid": "705ab4f5", "allowed": True}
