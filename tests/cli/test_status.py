"""`sidecar status`: what it calls well, and what it shows where there is not room for all."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rich.console import Console, RenderableType

from sidecar.cli import status_picture
from sidecar.cli.status_picture import Reading, Room, picture

STATES = ("closed", "open", "half_open", "forced_open", "forced_closed", "disabled")


def reading(
    routes: int = 1,
    *,
    states: dict[int, str] | None = None,
    finished: int = 40,
    in_minute: int = 40,
    **config: Any,
) -> Reading:
    """So many routes; those that `states` does not name are closed."""
    told = states or {}
    breakers = [
        {
            "route": f"r{n}", "upstream": "u", "state": told.get(n, "closed"), "told": told.get(n, "closed"),
            "why": "", "is_overridden": False, "is_probe_due": False,
            "override_seconds_left": None, "next_probe_seconds": None, "failure_rate": 0.25, "failure_count": 1,
            "total": 4, "failed": 1, "rejected": 0,
        }
        for n in range(routes)
    ]  # fmt: skip
    shut = [one for one in breakers if one["state"] in ("open", "forced_open")]
    durations = {"p50": 0.001, "p95": None, "p99": 1.5}
    status = {
        "service": "orders", "version": "1.2.3", "pid": 7, "uptime_seconds": 61.4, "exchanges": 2,
        "is_ready": True, "is_draining": False, "breakers": {"open_count": len(shut), "open": shut[:50]},
        "config": {"generation": 3, "is_last_reload_successful": True, "problems": [], **config},
    }  # fmt: skip
    rows = [
        {
            "name": one["route"], "upstreams": {"u": 1}, "finished": finished, "errors": finished // 5,
            "gone": finished // 10, "active": 1, "duration_seconds": durations,
            "minute": {
                "seconds": 60.0, "finished": in_minute, "errors": in_minute // 5, "gone": in_minute // 10,
                "duration_seconds": durations,
            },
            "breakers": [{"upstream": "u", "state": one["state"]}],
        }
        for one in breakers
    ]  # fmt: skip
    endpoint = {"address": "10.0.0.1:80", "in_flight": 1, "connections": 2, "idle": 1, "state": "usable"}
    upstreams = [
        {"name": "u", "pending": 0, "endpoints": [endpoint]},
        {"name": "unknown", "pending": 5, "endpoints": []},
    ]
    return Reading({"status": status, "routes": rows, "breakers": breakers, "upstreams": upstreams})


def text(shown: RenderableType, width: int = 1000) -> str:
    console = Console(width=width, height=1000, color_system=None)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


@pytest.mark.parametrize(
    ("state", "is_well"), list(zip(STATES, (True, False, True, False, True, True), strict=True)), ids=STATES
)
def test_open_is_not_well_by_itself_or_forced_and_nothing_else_is(state: str, is_well: bool) -> None:
    assert reading(states={0: state}).is_well is is_well


def test_a_failed_reload_is_not_well_and_shows_what_is_wrong() -> None:
    failed = reading(is_last_reload_successful=False, problems=["a.yaml:1:2: unknown key `oops`\n  oops: 1"])
    assert not failed.is_well
    shown = text(picture(failed))
    assert "The last reload FAILED" in shown
    assert "  a.yaml:1:2: unknown key `oops`\n" in shown
    assert "oops: 1" not in shown


def test_without_a_terminal_everything_is_there_in_the_order_of_the_file() -> None:
    shown = text(picture(reading(300, states={299: "open"})))
    assert "\n1 OPEN:\n  r299/u open\n" in shown
    assert [shown.count(f"\nr{n} ") for n in range(300)] == [2] * 300
    assert shown.index("\nr0 ") < shown.index("\nr299 ")
    assert "more" not in shown


@pytest.mark.parametrize("height", [23, 24, 40, 60])
@pytest.mark.parametrize("width", [80, 140])
def test_in_a_terminal_it_fits_and_what_is_open_comes_first(width: int, height: int) -> None:
    shown = text(picture(reading(1000, states={777: "open"}), room=Room(width, height)), width)
    assert len(shown.splitlines()) <= height
    rows = [line.split() for line in shown.splitlines() if re.match(r"r\d", line)]
    assert rows[0][0] == "r777"
    assert "more" in shown
    assert "10.0.0.1:80" in shown


LONG = "checkout-of-the-shop-to-payments-of-the-bank"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_what_matters_is_whole_at_every_width(width: int) -> None:
    """No line is too long, and no number, state or heading is cut; a long name may be."""
    state = reading(3, states={0: "open", 1: "half_open", 2: "forced_open"}).state
    state["breakers"][0] |= {"route": LONG, "next_probe_seconds": 12.3, "rejected": 123_456}
    state["breakers"][1] |= {"told": "closed, ramping 35 %"}
    state["breakers"][2] |= {
        "is_overridden": True,
        "override_seconds_left": 300.0,
        "told": "forced_open by hand",
    }
    state["routes"][0]["name"] = LONG
    lines = text(picture(Reading(state), room=Room(width)), width).splitlines()
    assert max(map(len, lines)) <= width
    assert any(re.search(r" open +.*probe in 12 s *$", line) for line in lines)
    assert any(re.search(r" forced_open by hand +.*auto in 300 s *$", line) for line in lines)
    assert any(re.search(r"^r1 .*closed, ramping 35 %", line) for line in lines)
    headings = [line for line in lines if re.match("(route|ro…|upstream) ", line)]
    assert len(headings) == 3
    assert not any("…" in line for line in headings) or width == 40
    assert sum(line.startswith(f"{LONG} ") for line in lines) == {100: 1, 200: 2}.get(width, 0)


def test_a_pipe_has_no_width() -> None:
    state = reading().state
    state["routes"][0]["name"] = state["breakers"][0]["route"] = "r" * 300
    assert text(picture(Reading(state))).count("r" * 300) == 2


def test_an_open_breaker_says_why() -> None:
    state = reading(8, states=dict.fromkeys(range(7), "open")).state
    state["breakers"][1]["why"] = "open: 5 × 503 10.0.0.7:8080; last probe: the same"
    shown = text(picture(Reading(state)))
    assert shown.splitlines()[1:8] == [
        "7 OPEN:",
        "  r0/u open",
        "  r1/u open: 5 × 503 10.0.0.7:8080; last probe: the same",
        "  r2/u open",
        "  r3/u open",
        "  r4/u open",
        "  and 2 more",
    ]


def test_a_breaker_held_closed_says_by_whom_and_is_well() -> None:
    state = reading(2, states={0: "forced_closed"}).state
    why = "forced_closed: by ada@bastion since 2026-11-24T18:37:17Z until ended by hand"
    state["breakers"][0] |= {"told": "forced_closed by hand", "is_overridden": True, "why": why}
    held = Reading(state)
    assert held.is_well
    assert f"\n1 HELD BY HAND:\n  r0/u {why}\n" in text(picture(held))


def test_a_probe_that_nobody_asks_for_is_due_at_the_next_request() -> None:
    state = reading(1, states={0: "open"}).state
    state["breakers"][0] |= {"told": "open, probe due", "is_probe_due": True, "next_probe_seconds": 0.0}
    assert re.search(r"^r0 .* open, probe due .* at the next request *$", text(picture(Reading(state))), re.M)


def routes_row(shown: str) -> list[str]:
    """Of the first route."""
    (row,) = [line for line in shown.splitlines() if line.startswith("r0") and "25" not in line]
    return re.split(r" {2,}", row.strip())


def test_rates_and_quantiles_are_those_of_the_last_minute() -> None:
    shown = text(picture(reading(finished=100_000, in_minute=60)))
    assert "Routes in the last minute" in shown
    assert routes_row(shown) == ["r0", "u", "1.0", "20.0%", "10.0%", "1", "-", "1500", "1"]


def test_under_twenty_are_too_few() -> None:
    row = routes_row(text(picture(reading(finished=100_000, in_minute=19))))
    assert row == ["r0", "u", "0.3", "3 of 19", "1 of 19", "too few", "too few", "too few", "1"]
    assert "too few" not in text(picture(reading(in_minute=20)))
    assert routes_row(text(picture(reading(in_minute=0)))) == ["r0", "u", "0.0", *"-----", "1"]


def test_all_since_the_start_is_shown_where_it_is_asked_for() -> None:
    shown = text(picture(reading(finished=100_000, in_minute=0), is_since_start=True))
    assert "Routes since the start" in shown
    assert routes_row(shown) == ["r0", "u", "100000", "20.0%", "10.0%", "1", "-", "1500", "1"]


def test_an_outage_says_since_when() -> None:
    state = reading(1, states={0: "open"}).state
    state["breakers"][0] |= {"why": "open: 5 × 503 10.0.0.7:8080", "since": "2026-11-24T18:37:17.250+00:00"}
    assert "\n  r0/u open: 5 × 503 10.0.0.7:8080; since 2026-11-24T18:37:17Z\n" in text(
        picture(Reading(state))
    )


def test_what_waits_for_the_next_start_and_what_was_lost_have_a_line() -> None:
    found = reading()
    found.state["status"] |= {
        "pending_restart": ["telemetry.otlp", "workers"],
        "telemetry_lost": [{"signal": "log", "reason": "write_failed", "count": 7}],
    }
    shown = text(picture(found))
    assert "\nat the next start: telemetry.otlp, workers\n" in shown
    assert (
        "\nlost of telemetry: 7 of log (write_failed: the disk is full, or nobody reads the log)\n" in shown
    )
    assert found.is_well


def test_while_nobody_answers_the_last_state_stays_and_says_so() -> None:
    shown = text(picture(reading(), trouble="Connection refused"))
    assert "NO ANSWER, this is what was seen last: Connection refused" in shown
    assert "\nr0 " in shown


def with_certificates(problem: str | None = None, seconds: int = 30 * 86_400) -> Reading:
    found = reading()
    one = {"file": "tls.crt", "expires_at": "", "expires_in_seconds": seconds, "is_key_open": False}
    owner = {"owner": "listener/inbound", "problem": problem, "certificates": [one]}
    found.state["status"]["certificates"] = [owner]
    return found


@pytest.mark.parametrize(
    ("seconds", "told", "is_well"),
    [
        (30 * 86_400, "good for 30 days", True),
        (47 * 3600, "good for 47 hours", True),
        (1, "good for 0 hours", True),
        (0, "EXPIRED", False),
    ],
)
def test_certificate_has_a_line(seconds: int, told: str, is_well: bool) -> None:
    found = with_certificates(seconds=seconds)
    assert f"certificate of listener/inbound: {told} (tls.crt)\n" in text(picture(found))
    assert found.is_well is is_well


def test_certificate_that_cannot_be_used_is_told_beside_the_one_that_is() -> None:
    found = with_certificates("tls.key: the key is not that of the certificate")
    line = (
        "listener/inbound: good for 30 days (tls.crt); what its files hold now is NOT USED: tls.key: the key"
    )
    assert line in text(picture(found))
    assert not found.is_well


def test_a_failover_has_a_line_as_long_as_it_lasts() -> None:
    state = reading().state
    row = {"route": "r0", "phase": "away", "kept_share": 0.56}
    state["upstreams"][0]["failover"] = {"to": ["dr", "far"], "routes": [row]}
    assert "\nFAILOVER: r0/u keeps 56% of its load, dr, far takes over\n" in text(picture(Reading(state)))
    row["phase"] = "home"
    assert "FAILOVER" not in text(picture(Reading(state)))


def test_an_adaptive_limit_has_a_line_and_those_that_refuse_most_come_first() -> None:
    state = reading().state
    assert "adaptive limit" not in text(picture(Reading(state)))
    limit = {"mode": "on", "limit": 20, "in_flight": 3, "refused": 0, "would_refuse": 0}
    state["upstreams"][0]["adaptive"] = limit
    state["upstreams"][1]["adaptive"] = {**limit, "mode": "observe", "would_refuse": 7}
    told = text(picture(Reading(state)))
    assert (
        "\nadaptive limit of unknown: 3 of 20 in flight, would have refused 7"
        "\nadaptive limit of u: 3 of 20 in flight, refused 0\n"
    ) in told
    state["upstreams"] = [{**state["upstreams"][0], "name": f"u{n}"} for n in range(7)]
    assert "\n  and 2 more\n" in text(picture(Reading(state)))


def test_an_endpoint_whose_checks_fail_is_shown_as_such() -> None:
    state = reading().state
    state["upstreams"][0]["endpoints"][0] |= {"state": "unhealthy", "ejected_seconds_left": None}
    assert re.search(r"^u .* 10.0.0.1:80 .* unhealthy ", text(picture(Reading(state))), re.M)


def test_an_endpoint_that_is_this_very_pod_is_shown_as_such() -> None:
    state = reading().state
    state["upstreams"][0]["endpoints"][0]["own_pod"] = True
    assert re.search(r"^u .* 10.0.0.1:80 +usable, this pod ", text(picture(Reading(state))), re.M)


def test_an_entry_that_nobody_can_list_has_a_row() -> None:
    known = {"address": "10.0.0.1:80", "in_flight": 0, "connections": 0, "idle": 0, "state": "usable"}
    lists = [{"entry": "file:///etc/a.yaml", "error": "cannot be read"}, {"entry": "b:80", "error": None}]
    rows = status_picture._endpoints(
        [
            {"name": "a", "pending": 0, "endpoints": [known], "lists": lists},
            {"name": "b", "pending": 0, "configured": ["b:80"], "endpoints": []},
            {"name": "c", "pending": 0, "configured": ["original"], "endpoints": []},
        ]
    )
    assert [(one["address"], one.get("state")) for one in rows] == [
        ("10.0.0.1:80", "usable"),
        ("file:///etc/a.yaml", "not listed"),
        ("no address is known", None),
        ("no client has come", None),
    ]
