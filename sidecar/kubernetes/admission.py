"""A pod that is being created → the JSON patch that puts the sidecar in. Pure: reviews in, answers out."""

from __future__ import annotations

import base64
import json
from typing import Any

from sidecar.kubernetes.patch import completion, patch
from sidecar.kubernetes.plan import Skipped, has_sidecar, plan
from sidecar.kubernetes.settings import Settings

API_VERSION = "admission.k8s.io/v1"
MAX_TOLD_CHARACTERS = 512
"""Of what a review said, in an answer and in a log: an annotation may have 256 KiB, anything else 3 MiB."""


class BadReview(Exception):
    """What was posted is no AdmissionReview for a pod."""


def review(body: Any, settings: Settings) -> dict[str, Any]:
    """Answer an AdmissionReview: with a patch, or allowed as it is, or refused with the reason.

    Raises:
        BadReview: there is nothing to answer.
    """
    request = body.get("request") if isinstance(body, dict) else None
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str):
        raise BadReview("an AdmissionReview with a request and its uid is expected")
    if body.get("apiVersion") != API_VERSION:
        raise BadReview(f"apiVersion {shortened(repr(body.get('apiVersion')))}: only {API_VERSION} is served")
    answer: dict[str, Any] = {"uid": request["uid"], "allowed": True}
    pod = request.get("object")
    if isinstance(pod, dict) and pod.get("kind", "Pod") == "Pod" and isinstance(pod.get("spec"), dict):
        answer.update(_decided(pod, settings))
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": answer}


def shortened(text: str) -> str:
    """At most `MAX_TOLD_CHARACTERS` of it."""
    return text if len(text) <= MAX_TOLD_CHARACTERS else f"{text[:MAX_TOLD_CHARACTERS]}…"


def told(answer: dict[str, Any]) -> str:
    """What was decided, in words for a log."""
    response = answer["response"]
    if not response["allowed"]:
        return f"refused: {response['status']['message']}"
    if "patch" in response:
        return "injected"
    (why,) = response.get("warnings") or ["sidecar: left as it is"]
    return str(why).removeprefix("sidecar: ")


def _decided(pod: dict[str, Any], settings: Settings) -> dict[str, Any]:
    metadata = pod.get("metadata")
    if not _is_sound(pod):
        return {}  # it will not pass the API server's own validation, whose message is the better one
    try:
        found = plan(metadata or {}, pod["spec"], {}, settings)
        if isinstance(found, Skipped) and not found.is_asked_for:
            return {"warnings": [f"sidecar: left as it is: {found.reason}"]}  # kubectl shows it
        if isinstance(found, Skipped):
            operations = completion(pod, settings) if has_sidecar(metadata or {}, pod["spec"]) else []
        else:
            operations = patch(pod, found)
    except ValueError as error:
        return {"allowed": False, "status": {"code": 422, "message": f"sidecar: {shortened(str(error))}"}}
    if not operations:
        return {}
    encoded = json.dumps(operations, separators=(",", ":")).encode()
    return {"patchType": "JSONPatch", "patch": base64.b64encode(encoded).decode()}


def _is_sound(pod: dict[str, Any]) -> bool:
    """What a patch is laid upon has the types of a pod."""
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    if not isinstance(metadata, dict) or not isinstance(metadata.get("annotations") or {}, dict):
        return False
    lists = [spec.get(key) or [] for key in ("containers", "initContainers", "volumes", "imagePullSecrets")]
    if not lists[0] or not all(map(_is_list_of_objects, lists)):
        return False
    return all(_is_list_of_objects(item.get("env") or []) for item in (*lists[0], *lists[1]))


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
