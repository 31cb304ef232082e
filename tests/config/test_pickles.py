"""A snapshot goes to another process and comes back equal; problems do too."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.config.load import ConfigError, load_file, load_text
from sidecar.config.process.pickles import ITEMS, Unpacking, frame, pack

REFERENCE = Path(__file__).parents[2] / "config" / "reference.yaml"


def test_the_reference_comes_back_equal() -> None:
    environ = {"OTLP_KEY": "key"}
    snapshot = load_file(REFERENCE, environ).snapshot
    unpacking = Unpacking()
    for part in pack(snapshot):
        unpacking.add(part)
    again = unpacking.snapshot()
    assert again == snapshot
    assert type(again.upstreams) is type(snapshot.upstreams), "it cannot be changed either"


def test_many_routes_go_in_small_parts_and_stay_in_order() -> None:
    routes = "\n".join(f"- {{name: r{number}, upstream: a}}" for number in range(3 * ITEMS + 1))
    snapshot = load_text(
        f'version: 1\nupstreams: {{a: {{endpoints: ["127.0.0.1:1"]}}}}\nroutes:\n{routes}\n'
    ).snapshot
    parts = list(pack(snapshot))
    assert len(parts) == 1 + 1 + 4
    unpacking = Unpacking()
    for part in parts:
        unpacking.add(part)
    assert [route.name for route in unpacking.snapshot().routes] == [route.name for route in snapshot.routes]


def test_problems_keep_their_places() -> None:
    with pytest.raises(ConfigError) as caught:
        load_text("version: 2\nroutes: []\n", "a.yaml")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert (again.problems, again.files, again.digest) == (
        caught.value.problems,
        caught.value.files,
        caught.value.digest,
    )


def test_the_program_ends_quietly_when_who_asked_has_gone(tmp_path: Path) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text("version: 1\n")
    command = [sys.executable, "-m", "sidecar.runtime.loading", "0"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(frame(pickle.dumps((str(file), {}, None))))
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


LOOKED_THROUGH = (
    "import gc, sys\n"
    "from sidecar.config.process.program import main\n"
    "imported = len(gc.get_objects())\n"
    "main(0)\n"
    "print(imported, len(gc.get_objects()), file=sys.stderr)\n"
)


def test_after_each_load_what_was_imported_is_not_looked_through_for_garbage(tmp_path: Path) -> None:
    """It took ten times as long as the load of a small file, and the next one waited for it."""
    file = tmp_path / "sidecar.yaml"
    file.write_text("version: 1\n")
    request = frame(pickle.dumps((str(file), {}, None)))
    words = [sys.executable, "-c", LOOKED_THROUGH]
    done = subprocess.run(words, input=request, capture_output=True, check=True)
    imported, left = map(int, done.stderr.split())
    assert left < imported / 10
