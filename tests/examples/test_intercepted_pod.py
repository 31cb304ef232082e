"""The example of a pod with interception: what `inject` makes of it is done in a network namespace, and works."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sidecar.__main__ import main
from tests.examples.test_examples import EXAMPLES
from tests.support.pod import POD, SERVICES, namespaces, needed

pytestmark = pytest.mark.process
FOLDER = EXAMPLES / "intercepted-pod"


def test_the_app_is_served_and_calls_by_routes_and_knows_nothing(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    needed()
    assert main(["inject", "--intercept", "--quiet", str(FOLDER / "pod.yaml")]) == 0
    injected = YAML(typ="safe").load(capsysbinary.readouterr().out)
    spec = injected["spec"]["template"]["spec"]
    by_name = {one["name"]: one for one in (*spec["initContainers"], *spec["containers"])}
    (rules,) = [one for one in by_name.values() if one.get("args", [""])[0] == "intercept"]
    assert "env" not in by_name["orders"], "no http_proxy is asked for"
    uid = by_name["sidecar"]["securityContext"]["runAsUser"]
    with namespaces() as around:
        around.in_pod(sys.executable, "-m", "sidecar", *rules["args"])
        around.serve(around.pod, "http", "127.0.0.1", 8080)
        around.serve(around.world, "http", SERVICES["payments"], 80)
        around.serve(around.world, "http", SERVICES["unnamed"], 80)
        sidecar = around.sidecar(tmp_path, (FOLDER / "sidecar.yaml").read_text(), uid=uid)
        around.told(f"http://{POD}:8080/in", where=around.world)
        assert sidecar.routes(f"{POD}:8080") == ["app"]
        around.told("http://payments/out")
        assert sidecar.routes("payments") == ["payments"]
        around.told(f"http://{SERVICES['unnamed']}/")
        assert sidecar.routes(SERVICES["unnamed"]) == ["pass_through"]
