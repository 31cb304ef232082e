"""What becomes of what no route names: by the file, by the environment, and under which policies."""

from __future__ import annotations

from math import inf

import pytest

from sidecar.config.load import ConfigError, load_text
from sidecar.core.snapshot import Direction, Unmatched

HEAD = 'version: 1\nupstreams: {app: {endpoints: ["127.0.0.1:8080"]}}\nroutes: [{name: app, upstream: app}]\n'


def test_it_is_refused_unless_somebody_says_otherwise() -> None:
    snapshot = load_text(HEAD).snapshot
    assert {one.unmatched for one in snapshot.listeners.values()} == {Unmatched.REFUSE}
    assert snapshot.passed == {}


def test_the_environment_says_it_for_listeners_that_do_not() -> None:
    text = HEAD + "listeners: {inbound: {unmatched: refuse}, outbound: {}}\n"
    snapshot = load_text(text, environ={"SIDECAR_UNMATCHED": "pass_through"}).snapshot
    assert snapshot.listeners["inbound"].unmatched is Unmatched.REFUSE
    assert snapshot.listeners["outbound"].unmatched is Unmatched.PASS_THROUGH
    assert list(snapshot.passed) == ["outbound"]


def test_an_environment_that_says_something_else_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(HEAD, environ={"SIDECAR_UNMATCHED": "yes"})
    assert "SIDECAR_UNMATCHED says 'yes': it has to be refuse or pass_through" in str(caught.value)


def test_the_policies_are_the_defaults_but_for_what_only_a_route_can_mean() -> None:
    text = HEAD + (
        "listeners: {outbound: {unmatched: pass_through, pass_through_ports: [443, 80]}, inbound: {}}\n"
        "defaults: {timeouts: {request: 3s}, rewrite: {host: x}, fallback: {status: 200, body: x}}\n"
    )
    snapshot = load_text(text).snapshot
    route = snapshot.passed["outbound"]
    assert (route.name, route.listener, route.direction) == ("pass_through", "outbound", Direction.OUTBOUND)
    assert (route.timeouts.request_seconds, route.rewrite.host, route.fallback) == (3.0, None, None)
    assert route.timeouts.idle_seconds == inf
    assert snapshot.listeners["outbound"].pass_through_ports == {80, 443}


def test_idle_tunnels_end_where_the_defaults_say_so() -> None:
    text = (
        HEAD
        + "listeners: {outbound: {unmatched: pass_through}, inbound: {}}\ndefaults: {timeouts: {idle: 7s}}\n"
    )
    assert load_text(text).snapshot.passed["outbound"].timeouts.idle_seconds == 7.0
