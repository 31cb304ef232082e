"""A snapshot is told in the words of the file, and no key is forgotten."""

from pathlib import Path

import pytest

from sidecar.config.load import Loaded, load_file, load_text
from sidecar.config.load.defaults import HEADER_MAPS
from sidecar.config.tell import render

REFERENCE = Path(__file__).parents[2] / "config" / "reference.yaml"
TOLD_OTHERWISE = {
    "fallback.body_file": "fallback.body",
    **{".".join(path): ".".join(path) for path in HEADER_MAPS},
}


@pytest.fixture(scope="module")
def reference() -> Loaded:
    return load_file(REFERENCE, {"OTLP_KEY": "key"})


def test_each_policy_of_the_reference_is_told(reference: Loaded) -> None:
    for route in reference.snapshot.routes:
        told = render.route(route)
        for key, origin in reference.origins.of_route(route.name).items():
            if origin.place is None or origin.text in (None, "", "null"):
                continue
            whole = next((name for name in TOLD_OTHERWISE if key.startswith(name)), key)
            assert TOLD_OTHERWISE.get(whole, key) in told, f"{route.name}: {key}"


def test_the_built_in_route_is_told_with_units() -> None:
    text = 'version: 1\nupstreams: {a: {endpoints: ["127.0.0.1:1"]}}\nroutes: [{name: r, upstream: a}]\n'
    told = render.route(load_text(text).snapshot.routes[0])
    assert told["timeouts.request"] == "15s"
    assert told["circuit_breaker.failure_rate_threshold"] == "50%"
    assert told["circuit_breaker.sliding_window.size"] == "10s"
    assert told["match"] == "everything"
    assert "timeouts.attempt" not in told


def test_a_limit_that_is_off_is_told_as_off() -> None:
    text = (
        'version: 1\nupstreams: {a: {endpoints: ["127.0.0.1:1"]}}\n'
        "routes: [{name: r, upstream: a, timeouts: {request: 0s, head: off}}]\n"
    )
    told = render.route(load_text(text).snapshot.routes[0])
    assert (told["timeouts.request"], told["timeouts.head"], told["timeouts.idle"]) == ("off", "off", "5m")


def test_checks_and_shares_are_told_as_the_file_says_them() -> None:
    text = (
        'version: 1\nupstreams: {a: {endpoints: ["127.0.0.1:1"]}}\n'
        "routes: [{name: r, upstream: a, shift_up_to: 1.5, circuit_breaker: {half_open: {check: {path: /up}}}}]\n"
    )
    told = render.route(load_text(text).snapshot.routes[0])
    assert (told["shift_up_to"], told["weights_when_open"]) == ("1.5", "shift")
    assert told["circuit_breaker.half_open.check.path"] == "/up"
    assert told["circuit_breaker.half_open.check.timeout"] == "1s"


def test_what_is_off_or_a_number_is_told_as_the_file_says_it() -> None:
    text = (
        'version: 1\nupstreams: {a: {endpoints: ["127.0.0.1:1"], mesh: true}}\n'
        "routes: [{name: r, upstream: a, circuit_breaker: {warm_up: off}}]\n"
    )
    snapshot = load_text(text).snapshot
    told = render.route(snapshot.routes[0])
    assert told["circuit_breaker.warm_up"] == "off"
    assert render.upstream(snapshot.upstreams["a"])["mesh"] == "true"


def test_a_listener_is_told_with_its_direction() -> None:
    text = (
        "version: 1\nlisteners: {egress: {address: '127.0.0.1:1', direction: outbound}}\n"
        'upstreams: {a: {endpoints: ["127.0.0.1:1"]}}\nroutes: []\n'
    )
    told = render.listener(load_text(text).snapshot.listeners["egress"])
    assert (told["direction"], told["forwarded"]) == ("outbound", "keep")
