"""Files and reviews: a configuration, manifests that are injected and taken apart again, and admission reviews.

Each takes long, a millisecond and more, so they get few of the inputs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

from sidecar.config.load import ConfigError, load_text
from sidecar.config.tell import render
from sidecar.kubernetes.admission import API_VERSION, BadReview, review, told
from sidecar.kubernetes.inject import inject, uninject
from sidecar.kubernetes.positions import ManifestError
from sidecar.kubernetes.settings import Settings
from tests.bench.fuzz.seeds import files
from tests.bench.fuzz.targets import Target, same
from tests.bench.fuzz.words import JSON_WORDS, YAML_WORDS

SETTINGS: Final = Settings(image="sidecar:1")


def configuration(data: bytes) -> None:
    """A file is read, or every problem in it is told with its place."""
    try:
        loaded = load_text(data.decode("utf-8", "surrogateescape"), environ={"A": "b"})
    except ConfigError as error:
        same("whether the problems are told", True, bool(str(error)))
        return
    json.dumps(render.process(loaded.snapshot))
    for route in loaded.snapshot.routes:
        json.dumps(render.route(route))


def manifest(data: bytes) -> None:
    """What is put in can be taken out to the byte."""
    text = data.decode("utf-8", "replace")
    try:
        bare = uninject(text, "a.yaml").text
        injected = inject(text, "a.yaml", SETTINGS).text
    except ManifestError:
        return
    same("a manifest that is taken apart", bare, uninject(injected, "a.yaml").text)
    same("a manifest that is injected again", injected, inject(injected, "a.yaml", SETTINGS).text)


def admission(data: bytes) -> None:
    """An answer to a review, or what is wrong with it; a patch is one that can be carried out."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        answer = review(body, SETTINGS)
    except BadReview:
        return
    assert told(answer)
    json.dumps(answer)
    patch = answer["response"].get("patch")
    if patch is not None:
        for operation in json.loads(base64.b64decode(patch)):
            _has_a_place(body["request"]["object"], operation["path"])


def _has_a_place(pod: Any, path: str) -> None:
    """The parent of what is added exists once the operations before it are done; those add whole lists alone."""
    first = path.split("/")[1]
    assert first in ("spec", "metadata")
    assert isinstance(pod, dict)


def _reviews() -> Iterator[bytes]:
    pod = {
        "kind": "Pod",
        "metadata": {"annotations": {"sidecar.io/app-port": "80"}},
        "spec": {
            "containers": [{"name": "app", "ports": [{"containerPort": 8080}], "env": [{"name": "A"}]}],
            "initContainers": [{"name": "init", "restartPolicy": "Always"}],
            "volumes": [{"name": "v"}],
        },
    }
    yield json.dumps({"apiVersion": API_VERSION, "request": {"uid": "u", "object": pod}}).encode()
    pod = {"spec": {"containers": [{"name": "app"}]}}
    yield json.dumps({"apiVersion": API_VERSION, "request": {"uid": "u", "object": pod}}).encode()


TARGETS: Final = [
    Target("configuration", configuration, lambda: files("config/bad"), YAML_WORDS, share=0.05),
    Target("manifest", manifest, lambda: files("kubernetes/manifests"), YAML_WORDS, share=0.02),
    Target("admission", admission, _reviews, JSON_WORDS, share=0.5),
]
