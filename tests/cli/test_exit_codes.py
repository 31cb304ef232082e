"""The table of exit codes: each of them is provoked, and no command has one that is not in it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.__main__ import BROKEN_PIPE, INTERRUPTED, UNWRITTEN, main
from sidecar.cli import early_signals, exit_codes
from sidecar.cli.commands import COMMANDS, parser_of
from sidecar.cli.exit_codes import OF_ALL, TABLE
from sidecar.tuning.seen import Call
from tests.cli.conftest import Scene
from tests.support.ports import free_ports
from tests.tuning.test_sources import written as written_log
from tests.tuning.traffic import down, quarter, seen

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "sidecar" / "cli" / "README.md"
HOST_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {hostNetwork: true, containers: [{name: app, image: app}]}
"""
ROUTE = """\
kind: HTTPRoute
apiVersion: gateway.networking.k8s.io/v1
metadata: {name: shop, namespace: shop}
spec:
  rules:
  - backendRefs: [{name: app, port: 8080}]
"""
LOST_ROUTE = ROUTE.replace("  - backendRefs", "  - filters: [{type: ExtensionRef}]\n    backendRefs")
WARNED = """\
version: 1
upstreams: {app: {endpoints: ["a:1"]}, spare: {endpoints: ["b:1"]}}
routes: [{name: app, upstream: app}]
"""


def said(words: list[str]) -> int:
    """The exit code of a command: in this process, unless it takes one over, with its signals and its log."""
    if words[0] in early_signals.COMMANDS:
        process = started(*words)
        for stream, told in zip((sys.stdout, sys.stderr), process.communicate(), strict=True):
            stream.write(told.decode())
        return process.returncode
    try:
        return main(words)
    except SystemExit as ended:  # as argparse ends it
        return int(ended.code or 0)


def file(scene: Scene, name: str, text: str) -> str:
    path = scene.folder / name
    path.write_text(text)
    return str(path)


def started(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "sidecar", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended_by(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    process.send_signal(number)
    process.communicate()
    return process.returncode


def run_until_told(scene: Scene) -> int:
    process = started("run", file(scene, "own.yaml", on_ports(*free_ports(3))))
    assert main(["healthcheck", str(scene.folder / "own.yaml"), "--wait", "100s", "--quiet"]) == 0
    return ended_by(process, signal.SIGTERM)


def on_ports(inbound: int, probes: int, admin: int) -> str:
    return f"""\
version: 1
listeners: {{inbound: {{address: "127.0.0.1:{inbound}"}}}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
drain: {{delay: 0s}}
upstreams: {{app: {{endpoints: ["127.0.0.1:1"]}}}}
routes: [{{name: app, upstream: app}}]
"""


def run_beside(scene: Scene) -> int:
    process = started("run", scene.file)
    _, told = process.communicate()
    print(told.decode())
    return process.returncode


def of_an_open_breaker(scene: Scene) -> int:
    asked = ["--admin", scene.admin]
    assert main(["breaker", "open", "app", *asked]) == 0
    code = main(["status", *asked])
    assert main(["breaker", "auto", "app", *asked]) == 0
    return code


def webhook(scene: Scene) -> int:
    assert main(["certs", str(scene.folder / "tls"), "--for", "hook"]) == 0
    names = [str(scene.folder / "tls" / f"hook.{kind}") for kind in ("crt", "key")]
    process = started("webhook", "--host", "127.0.0.1", "--port", "0",
                      "--tls-certificate", names[0], "--tls-key", names[1])  # fmt: skip
    assert process.stderr is not None
    assert b"serving on port" in process.stderr.readline()
    return ended_by(process, signal.SIGTERM)


def tap(scene: Scene) -> int:
    """A request while it looks on."""
    process = started("tap", "--count", "1", "--admin", scene.admin)
    while process.poll() is None:
        subprocess.run(["curl", "-s", f"{scene.inbound}/said"], stdout=subprocess.DEVNULL, check=True)
    process.communicate()
    return process.returncode


def tuned(scene: Scene, name: str, calls: list[Call]) -> int:
    folder = scene.folder / name
    folder.mkdir()
    return said(written_log(folder, calls))


def drain(scene: Scene) -> int:
    """Of a sidecar that nobody else asks."""
    own = file(scene, "drained.yaml", on_ports(*free_ports(3)))
    process = started("run", own)
    assert main(["healthcheck", own, "--wait", "100s", "--quiet"]) == 0
    code = main(["drain", own])
    ended_by(process, signal.SIGTERM)
    return code


def in_folder(scene: Scene, name: str) -> str:
    return str(scene.folder / name)


NOBODY = ["--admin", "http://127.0.0.1:1"]
Provoked = Callable[[Scene], int]
PROVOKED: dict[tuple[str, int], Provoked] = {
    ("run", 0): run_until_told,
    ("run", 1): run_beside,
    ("run", 2): lambda scene: said(["run", in_folder(scene, "none.yaml")]),
    ("init", 0): lambda scene: said(["init", in_folder(scene, "new.yaml")]),
    ("init", 1): lambda scene: said(["init", scene.file]),
    ("init", 2): lambda scene: said(["init", "--app-port", "0"]),
    ("check", 0): lambda scene: said(["check", scene.file]),
    ("check", 1): lambda scene: said(["check", "--strict", file(scene, "warned.yaml", WARNED)]),
    ("check", 2): lambda scene: said(["check", in_folder(scene, "none.yaml"), scene.file]),
    ("explain", 0): lambda scene: said(["explain", scene.file, "/said"]),
    ("explain", 1): lambda scene: said(["explain", scene.file, "/elsewhere"]),
    ("explain", 2): lambda scene: said(["explain", scene.file, "elsewhere"]),
    ("diff", 0): lambda scene: said(["diff", scene.file, scene.file]),
    ("diff", 2): lambda scene: said(["diff", scene.file, in_folder(scene, "none.yaml")]),
    ("import", 0): lambda scene: said(["import", file(scene, "route.yaml", ROUTE)]),
    ("import", 1): lambda scene: said(["import", file(scene, "lost.yaml", LOST_ROUTE)]),
    ("import", 2): lambda scene: said(["import", in_folder(scene, "none.yaml")]),
    ("certs", 0): lambda scene: said(["certs", in_folder(scene, "made"), "--for", "a"]),
    ("certs", 1): lambda scene: said(["certs", scene.file, "--for", "a"]),
    ("certs", 2): lambda scene: said(["certs", in_folder(scene, "made"), "--for", "a", "--days", "0"]),
    ("schema", 0): lambda scene: said(["schema"]),
    ("schema", 2): lambda scene: said(["schema", "--yaml"]),
    ("status", 0): lambda scene: said(["status", "--admin", scene.admin]),
    ("status", 1): of_an_open_breaker,
    ("status", 2): lambda scene: said(["status", "--admin", "nowhere"]),
    ("tap", 0): tap,
    ("tap", 1): lambda scene: said(["tap", *NOBODY]),
    ("tap", 2): lambda scene: said(["tap", "none", "--admin", scene.admin]),
    ("tune", 0): lambda scene: tuned(scene, "better", seen(quarter, outages=3, rate=12.0, ill=60.0)),
    ("tune", 1): lambda scene: tuned(scene, "kept", seen(down, outages=1)),
    ("tune", 2): lambda scene: said(["tune", "app", *NOBODY]),
    ("breaker", 0): lambda scene: said(["breaker", "auto", "app", "--admin", scene.admin]),
    ("breaker", 1): lambda scene: said(["breaker", "auto", "app", *NOBODY]),
    ("breaker", 2): lambda scene: said(["breaker", "auto", "none", "--admin", scene.admin]),
    ("healthcheck", 0): lambda scene: said(["healthcheck", scene.file]),
    ("healthcheck", 1): lambda scene: said(["healthcheck", file(scene, "off.yaml", on_ports(1, 2, 3))]),
    ("healthcheck", 2): lambda scene: said(["healthcheck", "--timeout", "soon"]),
    ("drain", 0): drain,
    ("drain", 1): lambda scene: said(["drain", file(scene, "off.yaml", on_ports(1, 2, 3))]),
    ("drain", 2): lambda scene: said(["drain", "--hold", "long"]),
    ("demo", 2): lambda scene: said(["demo", "--once", "--serve"]),
    ("inject", 0): lambda scene: said(["inject", file(scene, "route.yaml", ROUTE)]),
    ("inject", 1): lambda scene: said(["inject", file(scene, "pod.yaml", HOST_POD)]),
    ("inject", 2): lambda scene: said(["inject", "--egress", scene.file]),
    ("intercept", 0): lambda scene: said(["intercept", "--dry-run"]),
    ("intercept", 2): lambda scene: said(["intercept", "--uid", "-1"]),
    ("webhook", 0): webhook,
    ("webhook", 1): lambda scene: said(
        ["webhook", "--port", "0", "--tls-certificate", "/nowhere", "--tls-key", "/nowhere"]
    ),
    ("webhook", 2): lambda scene: said(["webhook", "--port", "high"]),
    ("completion", 0): lambda scene: said(["completion", "bash"]),
    ("completion", 2): lambda scene: said(["completion", "sh"]),
    ("man", 0): lambda scene: said(["man", in_folder(scene, "man")]),
    ("man", 1): lambda scene: said(["man", scene.file]),
    ("man", 2): lambda scene: said(["man"]),
    ("version", 0): lambda scene: said(["version"]),
    ("version", 2): lambda scene: said(["version", "--all"]),
    ("help", 0): lambda scene: said(["help", exit_codes.TOPIC]),
    ("help", 2): lambda scene: said(["help", "none"]),
}  # fmt: skip
ELSEWHERE = {
    ("demo", 0): ("tests/process/test_demo.py", "test_the_whole_story_holds"),
    ("demo", 1): ("tests/process/test_demo.py", "test_a_breaker_that_does_nothing_is_told_and_ends_with_1"),
    ("demo", 130): ("tests/process/test_demo.py", "test_ctrl_c_ends_it_at_any_moment"),
    ("intercept", 1): (
        "tests/process/test_interception.py",
        "test_without_the_rights_it_says_which_are_needed",
    ),
}
"""What takes a story of many seconds, or the rights to write rules, has its test where these are."""


def test_every_command_and_every_code_of_the_table_is_provoked() -> None:
    assert set(TABLE) == set(COMMANDS)
    assert {(name, code) for name, codes in TABLE.items() for code in codes} == {*PROVOKED, *ELSEWHERE}
    for place, name in ELSEWHERE.values():
        assert f"def {name}(" in (ROOT / place).read_text()


@pytest.mark.parametrize(("name", "code"), PROVOKED, ids=lambda one: str(one))
def test_a_command_ends_with(
    name: str, code: int, scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert PROVOKED[name, code](scene) == code
    told = capsys.readouterr()
    assert code == 0 or told.out or told.err


def test_ctrl_c_ends_any_command_with_its_own_code() -> None:
    process = started("drain", "--hold", "100s", "/nowhere.yaml")
    assert process.stderr is not None
    assert process.stderr.readline()  # from now on it holds
    assert ended_by(process, signal.SIGINT) == INTERRUPTED
    assert {INTERRUPTED, BROKEN_PIPE, UNWRITTEN} < set(OF_ALL)


def test_the_help_of_a_command_ends_with_its_codes() -> None:
    _, parsers = parser_of(*COMMANDS)
    for name, parser in parsers.items():
        assert " ".join(exit_codes.told_of(name).split()) in " ".join(parser.format_help().split())


def test_the_page_has_the_same_table() -> None:
    text = PAGE.read_text()
    head, mark, rest = text.partition("<!-- exit codes -->\n")
    made = f"{head}{mark}{chr(10).join(exit_codes.markdown())}\n{rest[rest.index(chr(10) * 2) + 1 :]}"
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(made)
    assert PAGE.read_text() == made, "UPDATE_GOLDEN=1 pytest tests/cli"
