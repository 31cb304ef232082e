"""The commands that a container's health check and hooks run: what they ask, and how they end."""

import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.__main__ import main


class Answering(http.server.ThreadingHTTPServer):
    """A sidecar's probes or admin API, for one address family; keeps what it was asked."""

    def __init__(self, address: object, family: socket.AddressFamily) -> None:
        self.address_family = family
        self.asked: list[tuple[str, str | None]] = []
        self.status = 200
        super().__init__(address, _Handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "x", 0

    def get_request(self) -> tuple[socket.socket, object]:
        return self.socket.accept()[0], ("", 0)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Answering

    def do_GET(self) -> None:
        self.server.asked.append((f"{self.command} {self.path}", self.headers.get("Authorization")))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b'{"detail": "not now"}')

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "[::1]", "[::]", "unix"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Answering, str]]:
    """What answers, and the address as the configuration has it."""
    host: str = request.param
    if host == "unix":
        path = str(tmp_path / "s.sock")
        made, address = Answering(path, socket.AF_UNIX), f"unix:{path}"
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = Answering((host.strip("[]"), 0), family)
        address = f"{host}:{made.server_address[1]}"
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield made, address
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def configured(folder: Path, text: str) -> str:
    file = folder / "sidecar.yaml"
    file.write_text(f"version: 1\n{text}upstreams: {{app: {{endpoints: ['a:1']}}}}\nroutes: []\n")
    return str(file)


@pytest.mark.parametrize(("probe", "path"), [("ready", "readyz"), ("live", "livez"), ("started", "startupz")])
def test_a_probe_that_passes_is_0_wherever_it_is_served(
    probe: str, path: str, server: tuple[Answering, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, address = server
    file = configured(tmp_path, f'probes: {{address: "{address}"}}\n')
    assert main(["healthcheck", file, "--probe", probe]) == 0
    assert found.asked == [(f"GET /{path}", None)]
    assert capsys.readouterr().out.startswith(f"{probe}: ")


def test_a_probe_that_fails_is_1_and_says_why(
    server: tuple[Answering, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, address = server
    found.status = 503
    file = configured(tmp_path, f'probes: {{address: "{address}"}}\n')
    assert main(["healthcheck", file]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.rstrip().endswith('/readyz: 503 {"detail": "not now"}')


def test_nobody_there_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = configured(tmp_path, f"probes: {{address: 'unix:{tmp_path}/none.sock'}}\n")
    assert main(["healthcheck", file]) == 1
    assert "No such file" in capsys.readouterr().err


def test_an_address_without_a_port_of_its_own_cannot_be_asked_and_drain_holds_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held: list[float] = []
    monkeypatch.setattr(time, "sleep", held.append)
    file = configured(tmp_path, "admin: {address: '127.0.0.1:0'}\nprobes: {address: '127.0.0.1:0'}\n")
    assert main(["drain", file, "--hold", "7s"]) == 1
    assert main(["healthcheck", file]) == 1
    assert held == [7.0]
    assert capsys.readouterr().err.count("'http://127.0.0.1:0' is not an admin address") == 2


def test_the_file_is_where_run_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = configured(tmp_path, "probes: {address: 'unix:/none/${WHERE:-there}.sock'}\n")
    monkeypatch.setenv("SIDECAR_CONFIG", file)
    monkeypatch.setenv("WHERE", "here")
    assert main(["healthcheck"]) == 1
    assert "unix:/none/here.sock" in capsys.readouterr().err


def test_waiting_ends_as_soon_as_the_probe_passes(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    file = configured(tmp_path, f"probes: {{address: 'unix:{path}'}}\n")
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(main(["healthcheck", "--wait", "60s", file])))
    waiting.start()
    made = Answering(path, socket.AF_UNIX)
    try:
        made.handle_request()
        waiting.join(30)
    finally:
        made.server_close()
    assert codes == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "probes: {address: localhost:1}\n",
            "sidecar.yaml:2:19: 'localhost' is a name; a listener needs an IP",
        ),
        ("probes: {address: '${NOWHERE}'}\n", "environment variable NOWHERE is not set"),
        ("probes: {address: [}\n", "sidecar.yaml:2:"),
    ],
)
def test_a_file_that_does_not_say_where_is_2_unless_the_usual_address_answers(
    text: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bad file changes nothing in a process that runs, so it must not make it look ill."""
    file = configured(tmp_path, text)
    usual = f"unix:{tmp_path}/usual.sock"
    monkeypatch.setattr("sidecar.cli.healthcheck.url_of", lambda _: usual)
    assert main(["healthcheck", file]) == 2
    assert message in capsys.readouterr().err
    made = Answering(usual.removeprefix("unix:"), socket.AF_UNIX)
    thread = threading.Thread(target=made.handle_request)
    thread.start()
    assert main(["healthcheck", file]) == 0
    thread.join()
    made.server_close()


def test_problems_elsewhere_in_the_file_do_not_matter(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    file = configured(tmp_path, f"probes: {{address: 'unix:{path}'}}\nnonsense: ${{NOT_SET}}\n")
    made = Answering(path, socket.AF_UNIX)
    thread = threading.Thread(target=made.handle_request)
    thread.start()
    assert main(["healthcheck", file]) == 0
    thread.join()
    made.server_close()


@pytest.mark.parametrize("words", [["healthcheck", "--wait", "3"], ["drain", "--hold", "3"]])
def test_a_duration_without_a_unit_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "write 3s or 3ms" in capsys.readouterr().err


def test_drain_posts_with_the_token_that_the_configuration_names(
    server: tuple[Answering, str], tmp_path: Path
) -> None:
    found, address = server
    (tmp_path / "token").write_text("s3cret\n")
    file = configured(tmp_path, f'admin: {{address: "{address}", token_file: token}}\n')
    assert main(["drain", file]) == 0
    assert found.asked == [("POST /drain", "Bearer s3cret")]


def test_a_name_of_a_token_file_that_no_file_can_have_is_told(
    server: tuple[Answering, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, address = server
    assert (
        main(["drain", configured(tmp_path, f'admin: {{address: "{address}", token_file: "a\\0b"}}\n')]) == 1
    )
    assert "cannot be read: embedded null byte" in capsys.readouterr().err


def test_a_drain_that_is_refused_is_1_and_says_why(
    server: tuple[Answering, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, address = server
    found.status = 403
    assert main(["drain", configured(tmp_path, f'admin: {{address: "{address}"}}\n')]) == 1
    assert capsys.readouterr().err == "sidecar: not now\n"


def test_drain_holds_even_if_nobody_hears_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app beside may still need the time."""
    held: list[float] = []
    monkeypatch.setattr("sidecar.cli.drain.time.sleep", held.append)
    file = configured(tmp_path, f"admin: {{address: 'unix:{tmp_path}/none.sock'}}\n")
    assert main(["drain", "--hold", "15s", file]) == 1
    assert held == [15.0]
    assert "No such file" in capsys.readouterr().err


def test_a_file_that_has_gone_bad_keeps_no_hook_from_its_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process goes on with what it had, and so must the end of its pod."""
    held: list[float] = []
    monkeypatch.setattr("sidecar.cli.drain.time.sleep", held.append)
    usual = f"unix:{tmp_path}/usual.sock"
    monkeypatch.setattr("sidecar.cli.drain.url_of", lambda _: usual)
    file = configured(tmp_path, "admin: [}\n")
    assert main(["drain", "--hold", "15s", file]) == 2
    assert "sidecar.yaml:2:" in capsys.readouterr().err
    made = Answering(usual.removeprefix("unix:"), socket.AF_UNIX)
    thread = threading.Thread(target=made.handle_request)
    thread.start()
    assert main(["drain", "--hold", "15s", file]) == 0
    thread.join()
    made.server_close()
    assert [asked for asked, _ in made.asked] == ["POST /drain"]
    assert held == [15.0, 15.0]


@pytest.mark.parametrize("command", ["healthcheck", "drain"])
def test_it_starts_without_what_takes_long_to_import(command: str) -> None:
    code = (
        f"import sys, sidecar.cli.{command};"
        "print(*sorted({'pydantic', 'aiohttp', 'opentelemetry', 'uvloop', 'httptools', 'rich', 'asyncio'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
