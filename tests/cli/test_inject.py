"""`sidecar inject` as a command: its exit codes, and what it says."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from sidecar.__main__ import main

POD = "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n{more}  containers: [{{name: a, image: a}}]\n"
SERVICE = (
    "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: p}, ports: [{port: 80}]}\n"
)
APP = (
    "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: p}}\n"
    "spec: {containers: [{name: a, image: a, ports: [{containerPort: 80}]}]}\n"
)


@pytest.fixture
def inject(tmp_path: Path, capsys: Any) -> Any:
    """Runs it over files with these texts; code, stdout and stderr."""

    def run(*words: str, **texts: str) -> tuple[int, str, str]:
        files = []
        for name, text in texts.items():
            file = tmp_path / f"{name}.yaml"
            file.write_text(text)
            files.append(str(file))
        code = main(["inject", *words, *files])
        found = capsys.readouterr()
        return code, found.out, found.err.replace(f"{tmp_path}/", "")

    return run


def test_what_was_injected_is_exit_0(inject: Any) -> None:
    code, out, err = inject(one=APP)
    assert (code, "name: sidecar" in out or '"name": "sidecar"' in out) == (0, True)
    assert err == "Pod p: injected; its app is taken to listen at 80 (sidecar.io/app-port says it)\n"


@pytest.mark.parametrize(
    "more", ["  hostNetwork: true\n", "  os: {name: windows}\n", "  initContainers: [{name: sidecar}]\n"]
)
def test_what_could_not_be_injected_is_exit_1_and_written_as_it_was(inject: Any, more: str) -> None:
    text = POD.format(name="p", more=more)
    code, out, err = inject(one=text)
    assert (code, out) == (1, text)
    assert err.startswith("Pod p: left as it is: it ")
    assert inject("--ignore-uninjectable", one=text)[:2] == (0, text)


def test_what_was_not_to_be_injected_is_exit_0(inject: Any) -> None:
    text = POD.format(name="p, labels: {sidecar.io/inject: disabled}", more="")
    assert inject(one=text)[:2] == (0, text)


def test_a_file_without_pods_is_told(inject: Any) -> None:
    code, out, err = inject(one=SERVICE)
    assert (code, out) == (0, SERVICE)
    assert err == "one.yaml: nothing to inject: no object in it has a pod template\n"
    assert inject("--uninject", one=APP)[2] == "one.yaml: nothing to take out: no pod in it has the sidecar\n"


def test_services_of_another_file_are_found(inject: Any) -> None:
    code, out, err = inject("--rewrite-services", one=SERVICE, two=APP)
    assert code == 0
    assert "targetPort: 15006" in out or '"targetPort": 15006' in out
    assert "Service s: port 80 goes to the sidecar's 15006 now, not to 80\n" in err


def test_each_flag_reaches_the_pod(inject: Any) -> None:
    flags = (
        "--http-proxy --proxy-containers a --no-grpc-proxy db --env A=1 --env B=2,C=3 --image-pull-policy Always "
        "--pull-secrets x,y --run-as-user unset --cpu-limit 2 --app-protocol http2 --opaque-ports 81,82"
    )
    code, out, _ = inject(*flags.split(), one=APP)
    assert code == 0
    for name, value in (
        ("A", "1"),
        ("B", "2"),
        ("C", "3"),
        ("APP_PROTOCOL", "http2"),
        ("no_grpc_proxy", "db,localhost"),
    ):
        assert f'{{"name": "{name}", "value": "{value}' in out or f"name: {name}\n" in out
    assert "Always" in out
    assert "runAsUser" not in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--memory", "64MB"], "memory: '64MB' is no quantity of memory, such as 128Mi; write 64M"),
        (["--cpu", "1core"], "cpu: '1core' is no quantity of CPU, such as 100m or 1; write 1"),
        (["--image", ""], "image: '' is no reference of an image"),
        (["--app-port", "x"], "app-port: 'x' is no port"),
        (["--env", "A"], "env: 'A' is no variable"),
    ],
)
def test_bad_values_are_exit_2(inject: Any, capsys: Any, words: list[str], told: str) -> None:
    try:
        code, _, err = inject(*words, one=APP)
    except SystemExit as ended:
        code, err = ended.code, capsys.readouterr().err
    assert code == 2
    assert told in err


def test_the_collector_of_cycles_is_on_again_afterwards(inject: Any) -> None:
    assert gc.isenabled()
    inject(one=APP)
    assert gc.isenabled()
    inject(one="a: [")
    assert gc.isenabled()
