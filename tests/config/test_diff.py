"""What another configuration changes, key by key, and which breakers go on."""

import pytest

from sidecar.config.load import load_text
from sidecar.config.tell.diff import Change, Diff, Fate, Item, Kind, diff
from sidecar.core.snapshot import Snapshot

BASE = """\
version: 1
upstreams:
  a: {endpoints: ["127.0.0.1:1"]}
  b: {endpoints: ["127.0.0.1:2"]}
routes:
- {name: one, match: {path: {prefix: /one}}, upstream: a}
- {name: two, upstream: b}
"""


def snapshot(*changes: tuple[str, str]) -> Snapshot:
    text = BASE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return load_text(text).snapshot


def changed(*changes: tuple[str, str]) -> Diff:
    return diff(snapshot(), snapshot(*changes))


def test_nothing_differs_from_itself() -> None:
    found = changed()
    assert not found
    assert (found.breakers_kept, found.breakers_reset) == (2, 0)


def test_a_comment_changes_nothing() -> None:
    assert not changed(("version: 1\n", "version: 1 # one\n"))


def test_a_new_threshold_keeps_the_breaker() -> None:
    found = changed(("upstream: a}", "upstream: a, circuit_breaker: {open_for: 50s}}"))
    fate = Fate("a", True, "new thresholds apply to the state and window it has")
    change = Change("circuit_breaker.open_for", "5s", "50s")
    assert found.routes[0].breakers == (fate,)
    assert change in found.routes[0].changes
    assert str(change) == "circuit_breaker.open_for: 5s → 50s"
    assert [item.name for item in found.routes] == ["one"]


def test_a_timeout_that_is_switched_off_is_a_change() -> None:
    found = changed(("upstream: a}", "upstream: a, timeouts: {request: off, attempt: 2s}}"))
    assert [str(change) for change in found.routes[0].changes] == [
        "timeouts.request: 15s → off",
        "timeouts.attempt: unset → 2s",
    ]


def test_another_direction_of_a_listener_is_a_change() -> None:
    edge = '{address: "127.0.0.1:5", direction: inbound}}\n'
    one = snapshot(("version: 1\n", f"version: 1\nlisteners: {{inbound: {{}}, edge: {edge}"))
    two = snapshot(
        (
            "version: 1\n",
            f"version: 1\nlisteners: {{inbound: {{}}, edge: {edge.replace('inbound', 'outbound')}",
        )
    )
    assert [str(change) for change in diff(one, two).listeners[0].changes] == [
        "direction: inbound → outbound",
        "forwarded: append → keep",
    ]


def test_another_window_keeps_the_state_alone() -> None:
    found = changed(("upstream: a}", "upstream: a, circuit_breaker: {sliding_window: {size: 20s}}}"))
    assert [str(change) for change in found.routes[0].changes] == [
        "circuit_breaker.sliding_window.size: 10s → 20s"
    ]
    assert found.routes[0].breakers[0].is_kept
    assert "starts empty" in found.routes[0].breakers[0].why


def test_other_endpoints_reset_the_breakers_of_all_routes_that_go_there() -> None:
    found = changed(("127.0.0.1:1", "127.0.0.1:3"))
    assert found.routes == (
        Item("one", Kind.CHANGED, (), (Fate("a", False, "none of the upstream's endpoints stays"),)),
    )
    assert found.upstreams == (
        Item("a", Kind.CHANGED, (Change("endpoints", "[127.0.0.1:1]", "[127.0.0.1:3]"),)),
    )
    assert (found.breakers_kept, found.breakers_reset) == (1, 1)


def test_other_limits_of_an_upstream_keep_its_breakers() -> None:
    found = changed(('["127.0.0.1:1"]', '["127.0.0.1:1"], limits: {max_requests: 5}'))
    assert found.routes == ()
    assert found.upstreams[0].changes == (Change("limits.max_requests", "1024", "5"),)
    assert found.breakers_reset == 0


def test_routes_come_and_go() -> None:
    found = changed(("- {name: two, upstream: b}", "- {name: three, upstream: b}"))
    assert found.routes == (
        Item("two", Kind.REMOVED, (), (Fate("b", False, "the route is removed"),)),
        Item("three", Kind.ADDED),
    )
    assert (found.count(Kind.ADDED), found.count(Kind.REMOVED), found.count(Kind.CHANGED)) == (1, 1, 0)


def test_a_route_that_goes_elsewhere_loses_that_breaker_alone() -> None:
    found = changed(("upstream: a}", "weights: {a: 90, b: 10}}"))
    assert found.routes[0].changes == (
        Change("upstream", "a", None),
        Change("weights", None, "{a: 90, b: 10}"),
    )
    assert found.routes[0].breakers == (Fate("a", True, "nothing of it has changed"),)
    back = diff(snapshot(("upstream: a}", "weights: {a: 90, b: 10}}")), snapshot())
    assert back.routes[0].breakers[1] == Fate("b", False, "the route does not use this upstream any more")


def test_the_order_of_routes_is_a_difference() -> None:
    one, two = BASE.splitlines()[-2:]
    found = changed((f"{one}\n{two}", f"{two}\n{one}"))
    assert found
    assert found.is_order_changed
    assert found.routes == ()


def test_what_waits_for_a_restart_is_named() -> None:
    found = changed(
        ("version: 1\n", "version: 1\ndrain_timeout: 3s\ntelemetry: {traces: {sample_ratio: 5%}}\n")
    )
    assert [str(change) for change in found.process] == [
        "telemetry.traces.sample_ratio: 1% → 5%",
        "drain_timeout: 25s → 3s",
    ]
    assert [change.key for change in found.pending_restart] == ["telemetry.traces.sample_ratio"]


def test_a_header_that_may_be_a_secret_is_not_told() -> None:
    def with_key(key: str) -> Snapshot:
        return snapshot(("upstream: a}", f'upstream: a, request_headers: {{set: {{x-api-key: "{key}"}}}}}}'))

    found = diff(with_key("s3cret-one"), with_key("s3cret-two"))
    told = str(found.routes[0].changes[0])
    assert "s3cret" not in told
    assert found.routes[0].changes[0].key == "request_headers.set"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("http://u:one@otel:4317", "http://u:two@otel:4317"),
        ("http://otel:4317/?token=one", "http://otel:4317/?token=two"),
        ("http://otel:4317", "http://u:one@otel:4317"),
    ],
)
def test_another_password_in_a_url_is_a_change_and_is_not_told(old: str, new: str) -> None:
    text = "version: 1\nroutes: []\ntelemetry: {otlp: {endpoint: '%s'}}\n"
    found = diff(load_text(text % old).snapshot, load_text(text % new).snapshot)
    assert [change.key for change in found.process] == ["telemetry.otlp.endpoint"]
    assert found.pending_restart == found.process
    told = str(found.process[0])
    assert "one" not in told
    assert "two" not in told
    assert not diff(load_text(text % new).snapshot, load_text(text % new).snapshot)
