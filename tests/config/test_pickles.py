"""A snapshot goes to another process and comes back equal; problems do too."""

import pickle
from pathlib import Path

import pytest

from sidecar.config.load import ConfigError, load_file, load_text
from sidecar.config.process.pickles import ITEMS, Unpacking, pack

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
