"""What the README says is so: its commands run, its configuration is good, its tables are those of the code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sidecar.config.load import load_text
from sidecar.core.errors import Reason
from sidecar.core.statechart import mermaid
from sidecar.forwarding.answers import TABLE
from tests.support.ports import accepts, free_ports
from tests.support.process import http_get, output_until

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BREAKER = (ROOT / "sidecar" / "core" / "breaker" / "README.md").read_text()
ANSWERS = (ROOT / "sidecar" / "forwarding" / "README.md").read_text()
INCIDENTS = (ROOT / "deploy" / "INCIDENTS.md").read_text()


def marked(name: str, page: str = README) -> str:
    """The code block behind the comment `<!-- name -->`."""
    match = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", page, re.DOTALL)
    assert match is not None
    return match[1].strip()


def test_the_first_route_is_a_good_configuration() -> None:
    snapshot = load_text(marked("config")).snapshot
    assert [route.name for route in snapshot.routes] == ["app", "checkout-to-payments"]


def test_the_picture_of_the_breaker_is_the_codes_own() -> None:
    assert marked("breaker", BREAKER) == mermaid().strip()


def test_the_table_of_answers_is_the_codes_own() -> None:
    _, _, table = ANSWERS.partition("<!-- answers -->\n")
    rows = re.findall(r"^\|.*\| (\d+) \| `(\w+)` \| `(\w+)` \|$", table, re.MULTILINE)
    written = {(int(status), error, error_type) for status, error, error_type in rows}
    assert written == {(row.status, row.proxy_error, reason.error_type) for reason, row in TABLE.items()}
    assert set(Reason) - TABLE.keys() == {Reason.CLIENT_GONE}


def test_every_reason_has_a_row_that_says_what_to_do() -> None:
    _, _, table = INCIDENTS.partition("<!-- reasons -->\n")
    rows = re.findall(r"^\| `(\w+)` \| ([\d, ]+) \| .+ \| .+ \|$", table, re.MULTILINE)
    written = {(reason, int(status)) for reason, statuses in rows for status in statuses.split(", ")}
    assert written == {
        ("client_gone", 499),
        *((reason.error_type, row.status) for reason, row in TABLE.items()),
    }


def test_every_reason_in_the_log_has_a_row() -> None:
    """Some are one `error.type` with others, and the log alone names them."""
    rows = [line for line in INCIDENTS.splitlines() if re.match(r"\| .+ \| .+ \| .+ \|$", line)]
    told = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    assert {reason.value for reason in Reason} - told == set()


def test_every_alert_leads_to_its_own_row() -> None:
    (group,) = YAML(typ="safe").load(ROOT / "deploy" / "monitoring" / "alerts.yaml")["groups"]
    alerts = [rule for rule in group["rules"] if "alert" in rule]
    assert len(alerts) > 5
    for rule in alerts:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/INCIDENTS.md")
        (row,) = [line for line in INCIDENTS.splitlines() if f'<a id="{anchor}"></a>' in line]
        assert f"`{rule['alert']}`" in row


def test_ci_runs_the_very_command_for_the_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "<!-- test -->" in script
    assert marked("test").endswith(".venv/bin/pytest -n auto --dist worksteal")
    assert "\n" not in marked("test")
    assert "\n" not in marked("run")
    assert "\n" not in marked("serve")


def test_the_first_command_ends_in_the_demo() -> None:
    (first, *_) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert first.strip() == marked("run")
    *installation, last = marked("run").split(" && ")
    assert installation == ["python3 -m venv .venv", ".venv/bin/pip install --quiet ."]
    assert last == ".venv/bin/sidecar demo"


@pytest.mark.process
async def test_the_command_that_tells_the_story_tells_it_until_ctrl_c(tmp_path: Path) -> None:
    """As it stands behind the installation."""
    command = marked("run").rpartition(" && ")[2].replace(".venv/bin/sidecar", f"{sys.executable} -m sidecar")
    process = await asyncio.create_subprocess_shell(
        f"exec {command}",
        cwd=tmp_path,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    told = await output_until(process, "trace")
    process.send_signal(signal.SIGINT)
    rest, _ = await process.communicate()
    assert process.returncode == 0
    assert "Traceback" not in told + rest.decode()


@pytest.mark.process
async def test_the_command_that_runs_it_serves_files_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """With ports that are free here."""
    app, inbound, outbound, probes, admin = free_ports(5)
    config = tmp_path / "minimal.yaml"
    minimal = (ROOT / "config" / "minimal.yaml").read_text().replace("127.0.0.1:8080", f"127.0.0.1:{app}")
    config.write_text(f"""\
{minimal}
listeners:
  inbound: {{address: "127.0.0.1:{inbound}"}}
  outbound: {{address: "127.0.0.1:{outbound}"}}
probes: {{address: "127.0.0.1:{probes}"}}
admin: {{address: "127.0.0.1:{admin}"}}
""")
    (tmp_path / "hello.txt").write_text("hello from a file")
    command = marked("serve")
    for old, new in (
        (".venv/bin/sidecar", f"{sys.executable} -m sidecar"),
        ("config/minimal.yaml", str(config)),
        (" 8080 ", f" {app} "),
        ("python3 -m http", f"{sys.executable} -m http"),
    ):
        assert old in command
        command = command.replace(old, new)
    with (tmp_path / "log").open("wb") as log:
        shell = await asyncio.create_subprocess_shell(
            f"exec {command}",
            cwd=tmp_path,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    try:
        async with asyncio.timeout(100):
            while True:
                with contextlib.suppress(OSError):
                    if (await http_get(inbound, "/hello.txt")) == (200, "hello from a file"):
                        break
                await asyncio.sleep(0.05)
        assert (await http_get(probes, "/readyz"))[0] == 200
        os.killpg(shell.pid, signal.SIGINT)
        async with asyncio.timeout(100):
            await shell.wait()
            for port in (app, inbound):
                while await accepts(port):  # noqa: ASYNC110  (another process tells nobody)
                    await asyncio.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
