"""The admission webhook: by real TLS on loopback, and its patch against what `inject` writes."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ruamel.yaml import YAML

from sidecar.kubernetes.admission import review
from sidecar.kubernetes.settings import STATUS
from sidecar.kubernetes.webhook import TlsFiles, Webhook
from tests.kubernetes.corpus import MANIFESTS, SETTINGS, injected, read


def make_certificate(folder: Path, name: str) -> TlsFiles:
    """A self-signed certificate for 127.0.0.1, written over what is there."""
    files = TlsFiles(folder / "tls.crt", folder / "tls.key")
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN={name}"
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


async def post(webhook: Webhook, body: bytes, certificate: Path) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(certificate))
    url = f"https://127.0.0.1:{webhook.port}/mutate"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, ssl=context, headers={"Content-Type": "application/json"}) as answer,
    ):
        return answer.status, await answer.read()


def admission(pod: Any) -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "705ab4f5", "operation": "CREATE", "object": pod},
    }


def patched(pod: Any, answer: dict[str, Any]) -> Any:
    """Apply an answer's patch, as the API server does; only `add` is needed."""
    response = answer["response"]
    assert response["allowed"] is True
    result = json.loads(json.dumps(pod))
    for operation in json.loads(base64.b64decode(response.get("patch", "W10="))):
        assert operation["op"] == "add"
        *path, last = [p.replace("~1", "/") for p in operation["path"].split("/")[1:]]
        at = result
        for part in path:
            at = at[int(part)] if isinstance(at, list) else at[part]
        if isinstance(at, list):
            at.insert(int(last), operation["value"])
        else:
            at[last] = operation["value"]
    return result


def pods() -> list[Any]:
    """Every pod of the corpus, and every template as the pod that a controller makes of it."""
    found = []
    for path in MANIFESTS:
        for before, after in zip(_templates(read(path)), _templates(injected(path)), strict=True):
            found.append(pytest.param(before, after, id=f"{path.stem}-{len(found)}"))
    return found


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


@pytest.mark.parametrize(("before", "after"), pods())
def test_the_patch_gives_what_injection_writes(before: Any, after: Any) -> None:
    by_patch = patched(before, review(admission(before), SETTINGS))
    if STATUS not in (after["metadata"].get("annotations") or {}):
        # opted out on the workload, which a webhook for pods does not see, or left alone by both
        assert by_patch == before or STATUS not in (before["metadata"].get("annotations") or {})
        return
    for item in (by_patch, after):
        item["metadata"]["annotations"].pop(STATUS)
    if _tuned_on_the_workload(after):
        return
    assert by_patch == after


def _tuned_on_the_workload(pod: Any) -> bool:
    annotations = pod["metadata"]["annotations"]
    return annotations.get("sidecar.io/config-map") == "tuned-config"


async def test_a_pod_is_patched_by_tls(tmp_path: Path) -> None:
    files = make_certificate(tmp_path, "one")
    pod = {"metadata": {"generateName": "a-"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    async with serving(files) as webhook:
        status, body = await post(webhook, json.dumps(admission(pod)).encode(), files.certificate)
    answer = json.loads(body)
    assert (status, answer["response"]["uid"]) == (200, "705ab4f5")
    assert answer["response"]["patchType"] == "JSONPatch"
    assert patched(pod, answer)["spec"]["initContainers"][0]["restartPolicy"] == "Always"


async def test_a_new_certificate_is_taken_without_a_restart(tmp_path: Path) -> None:
    files = make_certificate(tmp_path, "one")
    body = json.dumps(admission({"spec": {"containers": []}})).encode()
    async with serving(files) as webhook:
        assert (await post(webhook, body, files.certificate))[0] == 200
        old = tmp_path / "old.crt"
        old.write_bytes(files.certificate.read_bytes())
        make_certificate(tmp_path, "two")
        async with asyncio.timeout(20):
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
        async with asyncio.timeout(20):
            while "the old one stays" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await _is_trusted(webhook, body, good)


async def _is_trusted(webhook: Webhook, body: bytes, certificate: Path) -> bool:
    try:
        return (await post(webhook, body, certificate))[0] == 200
    except aiohttp.ClientError:
        return False


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"apiVersion":"admission.k8s.io/v1beta1"}', b"\xff"])
async def test_what_is_no_review_is_a_bad_request(tmp_path: Path, body: bytes) -> None:
    files = make_certificate(tmp_path, "one")
    async with serving(files) as webhook:
        assert (await post(webhook, body, files.certificate))[0] == 400


def test_a_pod_that_asks_for_the_impossible_is_refused_with_the_reason() -> None:
    pod = {"metadata": {"annotations": {"sidecar.io/mode": "daemon"}}, "spec": {"containers": []}}
    response = review(admission(pod), SETTINGS)["response"]
    assert response["allowed"] is False
    assert "neither native nor container" in response["status"]["message"]


def test_a_pod_with_the_sidecar_passes_unchanged() -> None:
    pod = {"metadata": {"annotations": {STATUS: "{}"}}, "spec": {"containers": [{"name": "a"}]}}
    assert "patch" not in review(admission(pod), SETTINGS)["response"]
