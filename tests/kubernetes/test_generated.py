"""Injection and its way back, on YAML in every mixture of styles."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from sidecar.kubernetes.choices import Mode
from sidecar.kubernetes.inject import inject, uninject
from sidecar.kubernetes.settings import Settings
from tests.kubernetes.corpus import SETTINGS
from tests.kubernetes.generated import manifests
from tests.kubernetes.test_inject import data, pod_specs, without_sidecar

OTHER = Settings(image="other:1", mode=Mode.CONTAINER, http_proxy=True, config_map="another")
FULL = replace(SETTINGS, proxy_init=True, pull_secrets=("a",), no_grpc_proxy="g", cpu_limit="1")
pytestmark = pytest.mark.timeout(900)
"""Against hanging: each example is some ten passes over YAML in plain Python, which take long on a busy machine."""
many = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(text=manifests())
def test_out_again_is_the_input_to_the_byte(text: str) -> None:
    assert uninject(inject(text, "x", SETTINGS).text, "x").text == text
    assert uninject(inject(text, "x", OTHER).text, "x").text == text
    assert uninject(inject(text, "x", FULL).text, "x").text == text


@many
@given(text=manifests())
def test_twice_is_once_and_the_last_settings_hold(text: str) -> None:
    once = inject(text, "x", SETTINGS).text
    assert inject(once, "x", SETTINGS).text == once
    assert inject(inject(text, "x", OTHER).text, "x", SETTINGS).text == once
    assert inject(inject(text, "x", FULL).text, "x", SETTINGS).text == once


@many
@given(text=manifests())
def test_every_pod_has_one_sidecar_and_is_otherwise_as_it_was(text: str) -> None:
    done = inject(text, "x", SETTINGS).text
    before, after = data(text), data(done)
    for spec in pod_specs(after):
        names = [item["name"] for key in ("initContainers", "containers") for item in spec.get(key) or []]
        assert names.count("sidecar") == 1
        assert [item["name"] for item in spec["volumes"]].count("sidecar-config") == 1
    assert [without_sidecar(item) for item in after] == [without_sidecar(item) for item in before]
