"""What the tools say about a file, to people and to programs."""

import http.server
import json
import threading
from pathlib import Path

import pytest

from sidecar.__main__ import main

TEXT = """\
version: 1
upstreams:
  payments: {endpoints: ["127.0.0.1:9000"]}
defaults:
  timeouts: {request: 3s}
routes:
- name: pay
  listener: outbound
  match: {hosts: [payments], path: {prefix: /v1}, methods: [POST]}
  upstream: payments
  circuit_breaker: {open_for: 7s}
- name: any
  listener: outbound
  upstream: payments
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "sidecar.yaml"
    path.write_text(TEXT)
    return str(path)


def test_explain_says_which_route_and_why_and_where_each_limit_comes_from(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    header = ["-H", "x-request-timeout-ms: 300", "-H", "grpc-timeout: soon"]
    code = main(["explain", file, "--listener", "outbound", "-X", "POST", *header, "http://payments/v1/x"])
    told = capsys.readouterr().out
    assert code == 0
    assert f"→ route pay ({file}:7:3)" in told
    assert "→ pay: the most specific of those that hold" in told
    assert "· any: holds, but pay is more specific or stands before it" in told
    assert "Deadline: 295 ms, from the header" in told
    assert "grpc-timeout: soon → ignored: not valid" in told
    assert f"timeouts.request: 3s → 3000 ms   (defaults, {file}:5:14)" in told
    assert f"7s   (route, {file}:11:21)" in told
    assert "5m   (built in)" in told


def test_explain_says_what_decides_between_endpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sidecar.yaml"
    entries = (
        '"127.0.0.1:9000", {address: "127.0.0.1:9001", weight: 0, zone: a}, {address: "b:80", priority: 1}'
    )
    path.write_text(TEXT.replace('"127.0.0.1:9000"', entries))
    assert main(["explain", str(path), "--listener", "outbound", "http://other/"]) == 0
    told = "127.0.0.1:9000, 127.0.0.1:9001 (weight 0, zone a), b:80 (priority 1)"
    assert f"→ upstream payments (weight 1): {told}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("retry", "more", "plan"),
    [
        ("", [], "none; a request that has certainly reached nobody goes to another endpoint"),
        (
            "{attempts: 2, on: [5xx, refused]}",
            [],
            "up to 2 more after 5xx, refused; each after up to 50ms, within the deadline, with a body of at most "
            "64KiB; 0.2 for each request and 3 a second in all",
        ),
        (
            "{attempts: 2, on: [5xx, refused]}",
            ["-X", "POST"],
            "up to 2 more after refused alone, since POST is not",
        ),
        ("{attempts: 2, on: [5xx]}", ["-X", "POST"], "none, since POST is not idempotent;"),
        ("{attempts: 2, on: [5xx]}", ["-H", "x-sidecar-retry: 1"], "none, since it is a retry already"),
        ("{attempts: 2, on: [5xx], nested: true}", ["-H", "x-sidecar-retry: 1"], "up to 2 more after 5xx;"),
        ("{attempts: 2, on: [5xx], non_idempotent: true}", ["-X", "POST"], "up to 2 more after 5xx;"),
    ],
)
def test_explain_says_what_is_tried_again(
    retry: str, more: list[str], plan: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(file).write_text(TEXT + (f"  retry: {retry}\n" if retry else ""))
    assert main(["explain", file, "--listener", "outbound", *more, "http://other/"]) == 0
    assert f"\nRetries: {plan}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "more", "plan"),
    [
        ("hedge: null", [], "Hedges: none\nCopies: none\n"),
        (
            "hedge: {}",
            [],
            "Hedges: up to 1 more at other endpoints, each the p95 of the last 1,000 good",
        ),
        (
            "hedge: {}",
            [],
            "; under 6 of 100 requests, 0.2 for each request and 3 a second in all,",
        ),
        (
            "hedge: {after: 50ms, max: 2}",
            [],
            "up to 2 more at other endpoints, each 50ms after the one before",
        ),
        ("hedge: {}", ["-X", "POST"], "Hedges: none, since POST is not idempotent\n"),
        ("hedge: {}", ["-H", "x-sidecar-retry: 1"], "Hedges: none, since it is a retry already"),
        (
            "mirror: {upstream: spare, share: 10%}",
            [],
            "Copies: 10% of the requests to spare, whose answers nobody gets; at most 64 at a time, each for 5s\n",
        ),
        (
            "mirror: {upstream: spare}",
            ["-X", "POST"],
            "Copies: none, since `mirror.methods` does not name POST\n",
        ),
        (
            "mirror: {upstream: spare}",
            ["-H", "x-sidecar-mirror: 1"],
            "Copies: none, since it is a copy already",
        ),
        (
            "weights: {payments: 9, spare: 1}",
            [],
            "While a breaker is open: its share goes to the others",
        ),
        (
            "weights: {payments: 9, spare: 1}, weights_when_open: keep",
            [],
            "While a breaker is open: its share is refused (weights_when_open: keep)\n",
        ),
        (
            "weights: {payments: 9, spare: 1}, shift_up_to: 3",
            [],
            "none gets more than 3 times its own; the rest is",
        ),
    ],
)
def test_explain_says_what_is_sent_beside_a_request(
    keys: str, more: list[str], plan: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = "" if "weights" in keys else "upstream: payments, "
    Path(file).write_text(
        "version: 1\nupstreams: {payments: {endpoints: [a:1]}, spare: {endpoints: [b:1]}}\n"
        f"routes:\n- {{name: any, listener: outbound, {where}{keys}}}\n"
    )
    assert main(["explain", file, "--listener", "outbound", *more, "http://other/"]) == 0
    assert plan in capsys.readouterr().out


def test_explain_says_that_a_route_has_no_limit(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(file).write_text(TEXT.replace("request: 3s", "request: off"))
    asked = ["explain", file, "--listener", "outbound", "-H", "grpc-timeout: soon", "http://payments/"]
    assert main(asked) == 0
    told = capsys.readouterr().out
    assert "Deadline: none\n" in told
    assert f"timeouts.request: off → no limit   (defaults, {file}:5:14)" in told
    assert "grpc-timeout: soon → ignored: not valid" in told
    assert main([*asked, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (answer["budget_ms"], answer["budget_source"]) == (None, None)


def test_explain_lets_a_caller_limit_a_route_that_has_no_limit(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(file).write_text(TEXT.replace("request: 3s", "request: off"))
    header = ["-H", "x-request-timeout-ms: 300"]
    assert main(["explain", file, "--listener", "outbound", *header, "http://payments/"]) == 0
    assert "Deadline: 295 ms, from the header" in capsys.readouterr().out


def test_explain_says_why_none(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", file, "--listener", "inbound", "http://payments/v2"]) == 1
    assert "no route: 404" in capsys.readouterr().out
    assert main(["explain", file, "--listener", "nowhere", "/"]) == 2
    assert "there is no listener 'nowhere'; the file has inbound, outbound" in capsys.readouterr().err


def test_explain_says_where_what_no_route_names_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text(
        "version: 1\nlisteners: {inbound: {}, outbound: {unmatched: pass_through}}\n"
        'upstreams: {app: {endpoints: ["127.0.0.1:8080"]}}\n'
        "routes: [{name: app, upstream: app, match: {path: {exact: /a}}}]\n"
    )
    assert main(["explain", str(file), "--listener", "outbound", "http://elsewhere:81/x"]) == 1
    assert "no route: passed through to elsewhere" in capsys.readouterr().out
    assert main(["explain", str(file), "--listener", "inbound", "http://elsewhere:81/x"]) == 1
    assert "no route: 404" in capsys.readouterr().out


def test_explain_names_the_condition_that_fails(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["explain", file, "--listener", "outbound", "--json", "http://payments/v2"])
    answer = json.loads(capsys.readouterr().out)
    assert code == 0
    assert answer["route"] == "any"
    assert answer["explanations"][0]["reason"] == "path /v2 is not prefix /v1"
    assert answer["deadline"][0]["milliseconds"] == 3000


def test_explain_adds_what_a_running_sidecar_knows(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked directly, though the environment names a proxy: that may be this sidecar's own outbound listener."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    token_file = tmp_path / "token"
    token_file.write_text("secret\n")

    class Admin(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["authorization"]))
            body = b'[{"upstream": "payments", "state": "open"}]'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    asked: list[tuple[str, str]] = []
    with http.server.HTTPServer(("127.0.0.1", 0), Admin) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        admin = f"http://127.0.0.1:{server.server_port}/"
        live = ["--json", "--admin", admin, "--token-file", str(token_file)]
        main(["explain", file, "--listener", "outbound", *live, "/"])
        thread.join(10)
        assert json.loads(capsys.readouterr().out)["live"] == [{"upstream": "payments", "state": "open"}]
        assert asked == [("/breakers/any", "Bearer secret")]
        server.server_close()
        assert main(["explain", file, "--listener", "outbound", "--json", "--admin", admin, "/"]) == 0
        assert "error" in json.loads(capsys.readouterr().out)["live"]


@pytest.mark.parametrize("admin", ["ftp://127.0.0.1", "http://127.0.0.1:port", "127.0.0.1:15000"])
@pytest.mark.parametrize("command", ["explain", "status", "breaker", "tap"])
def test_a_wrong_admin_address_is_wrong_use(
    command: str, admin: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"explain": ["explain", file, "/"], "breaker": ["breaker", "open", "any"]}
    assert main([*words.get(command, [command]), "--admin", admin]) == 2
    assert f"{admin!r} is not an admin address" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["status"], ["breaker", "open", "any"], ["tap"]])
def test_a_token_file_of_two_lines_is_wrong_use(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("one\ntwo\n")
    assert main([*command, "--admin", "unix:/none.sock", "--token-file", str(tmp_path / "token")]) == 2
    assert capsys.readouterr().err == f"sidecar: the token file {tmp_path}/token has more than one line\n"


def test_diff_says_what_changes_and_which_breakers_go_on(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(TEXT.replace("7s", "9s").replace("name: any", "name: rest"))
    assert main(["diff", file, str(other)]) == 0
    assert capsys.readouterr().out == (
        "~ route pay\n"
        "    circuit_breaker.open_for: 7s → 9s\n"
        "    breaker payments kept: new thresholds apply to the state and window it has\n"
        "- route any\n"
        "    breaker payments reset: the route is removed\n"
        "+ route rest\n"
        "breakers: 1 kept, 1 reset\n"
    )
    assert main(["diff", "--json", file, file]) == 0
    assert json.loads(capsys.readouterr().out)["routes"] == []
    other.write_text("version: 1\n")
    assert main(["diff", file, str(other)]) == 2
    assert "missing key 'routes'" in capsys.readouterr().err


def test_schema_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "sidecar configuration"


def test_wrong_use_is_two() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["explain"])
    assert caught.value.code == 2


ACTING = """\
version: 1
upstreams: {app: {endpoints: ["127.0.0.1:9000"]}, canary: {endpoints: ["127.0.0.1:9001"]}}
routes:
- {name: away, match: {hosts: ["old.test:81"], path: {prefix: /a}}, redirect: {scheme: https, prefix: /b}}
- {name: gone, match: {hosts: [old.test]}, respond: {status: 410, body: gone}}
- name: app
  match: {path: {prefix: /v1}}
  weights: {app: 9, canary: {weight: 1, request_headers: {set: {x-canary: "${client.address}"}}}}
  clients: {allow: [10.0.0.0/8], deny: [10.0.0.1], forwarded_hops: 1}
  cors: {allow_origins: ["https://shop.test"], allow_methods: [PUT]}
  max_request_body: 1MiB
  rewrite: {prefix: /v2}
- {name: whole, match: {path: {exact: /x}}, upstream: app, rewrite: {path: /y}}
"""


@pytest.mark.parametrize(
    ("request_line", "told"),
    [
        (["http://old.test:81/a/c?d"], ["→ redirect: 302 to https://old.test/b/c?d"]),
        (["http://old.test:81/a/../a/c"], ["→ 400: a dot segment could leave the rewritten prefix"]),
        (["http://old.test/a"], ["→ respond: 410 with 4 bytes"]),
        (
            ["http://x/v1/a?b"],
            [
                "→ clients, by the address in X-Forwarded-For, 1 from its end: allow 10.0.0.0/8; deny 10.0.0.1/32; "
                "403 for others",
                "→ request body: 413 beyond 1MiB",
                "→ rewritten to /v2/a?b",
                "→ upstream canary (weight 1): 127.0.0.1:9001",
                '  cors.allow_origins                        ["https://shop.test"]',
            ],
        ),
        (
            [
                "-X", "OPTIONS", "-H", "origin: https://shop.test", "-H", "access-control-request-method: PUT",
                "http://x/v1/a",
            ],
            ["Access-Control-Allow-Origin: https://shop.test; Access-Control-Allow-Methods: PUT"],
        ),
        (["http://x/x?y"], ["→ rewritten to /y?y"]),
    ],
)  # fmt: skip
def test_explain_says_what_a_route_does_itself(
    tmp_path: Path, request_line: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text(ACTING)
    assert main(["explain", str(path), *request_line]) == 0
    shown = capsys.readouterr().out
    assert [line for line in told if line.replace('["', "[").replace('"]', "]") not in shown] == []


def test_explain_shows_no_retries_where_no_upstream_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text(ACTING)
    assert main(["explain", str(path), "http://old.test/a"]) == 0
    shown = capsys.readouterr().out
    assert ("Retries" in shown, "cors." in shown, "→ upstream" in shown) == (False, False, False)


def test_diff_shows_what_a_route_does_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(ACTING)
    new.write_text(
        ACTING.replace("410", "404")
        .replace("client.address", "client.port")
        .replace("10.0.0.0/8", "10.1.0.0/16")
    )
    assert main(["diff", str(old), str(new)]) in (0, 1)
    shown = capsys.readouterr().out
    assert "respond.status: 410 → 404" in shown
    assert "clients.allow: [10.0.0.0/8] → [10.1.0.0/16]" in shown
    assert (
        "weights.canary.request_headers.set: {x-canary: ${client.address}} → {x-canary: ${client.port}}"
        in shown
    )
