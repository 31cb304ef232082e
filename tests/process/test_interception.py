"""A pod whose app knows nothing of its sidecar: rules of the kernel send its connections there, and all works on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.authority import Authority
from tests.support.pod import (
    POD,
    POD_6,
    PROGRAMS,
    SERVICES,
    UID,
    WORLD,
    WORLD_6,
    Namespaces,
    Sidecar,
    namespaces,
)
from tests.support.pod_programs import Server

LISTENERS = """\
version: 1
listeners:
  inbound: {address: "0.0.0.0:15006", unmatched: pass_through}
  outbound: {address: "127.0.0.1:15001", unmatched: pass_through}
telemetry: {access_log: {sample_ratio: 1.0}}
drain: {delay: 0s}
"""
ROUTES = """\
upstreams:
  app: {endpoints: ["127.0.0.1:8080"]}
  payments: {endpoints: ["payments:80"]}
  greeter: {endpoints: ["greeter:50051"], protocol: http2}
  db: {endpoints: ["db-0.db:7000", "db-1.db:7000"]}
  own: {endpoints: ["10.77.0.2:8080"]}
  wherever: {endpoints: [original]}
routes:
- {name: app, upstream: app}
- {name: payments, listener: outbound, match: {hosts: [payments]}, upstream: payments, timeouts: {request: 5s}}
- {name: greeter, listener: outbound, match: {hosts: [greeter]}, upstream: greeter}
- {name: db, listener: outbound, match: {hosts: [db, "*.db"]}, upstream: db}
- {name: own, listener: outbound, match: {hosts: [own]}, upstream: own}
- {name: named, listener: outbound, match: {hosts: [elsewhere]}, upstream: wherever}
"""
WITHOUT_ROUTES = """\
upstreams: {app: {endpoints: ["127.0.0.1:8080"]}}
routes: [{name: app, upstream: app}]
"""
INTERCEPT = [sys.executable, "-m", "sidecar", "intercept"]


class Pod:
    """What a test talks to."""

    def __init__(self, around: Namespaces, sidecar: Sidecar) -> None:
        self.around = around
        self.sidecar = sidecar
        self.has_routes = True

    def name_of(self, route: str) -> str:
        """How an exchange is named that the route takes, if there is one."""
        return route if self.has_routes else "pass_through"


@contextmanager
def pod(folder: Path, routes: str, *, is_intercepted: bool = True) -> Iterator[Pod]:
    authority = Authority(folder)
    pair = authority.pair("tls")
    with namespaces() as around:
        for _ in range(2 if is_intercepted else 0):
            around.in_pod(*INTERCEPT)
        around.serve_all(
            around.pod,
            Server("http", "127.0.0.1", 8080),
            Server("http", POD, 8081),
            Server("redis", "0.0.0.0", 8082),
        )
        around.serve_all(
            around.world,
            *(Server("http", SERVICES[name], 80) for name in ("payments", "elsewhere", "unnamed")),
            *(Server("http", SERVICES[name], 7000) for name in ("db-0.db", "db-1.db")),
            Server("http", "fd77::14", 80),
            Server("grpc", SERVICES["greeter"], 50051),
            *(Server("greeting", SERVICES["mysql"], port) for port in (3306, 9999)),
            *(Server("redis", SERVICES["redis"], port) for port in (7777, 6379)),
            Server("websocket", SERVICES["chat"], 80),
            Server("http", SERVICES["tls"], 443, (str(pair.chain), str(pair.key))),
        )
        sidecar = around.sidecar(folder, LISTENERS + routes)
        yield Pod(around, sidecar)


@pytest.fixture(scope="module", params=["routes", "no routes"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    folder = tmp_path_factory.mktemp("pod")
    has_routes = request.param == "routes"
    with pod(folder, ROUTES if has_routes else WITHOUT_ROUTES) as made:
        made.has_routes = has_routes
        yield made


@pytest.fixture
def to(whole: Pod) -> Pod:
    whole.sidecar.forget()
    return whole


# The app's calls


def test_a_call_by_http_goes_by_its_route_or_on_its_way(to: Pod) -> None:
    told = to.around.told("http://payments/pay")
    assert (told["line"], told["at"]) == ("GET /pay HTTP/1.1", SERVICES["payments"])
    assert to.sidecar.routes("payments") == [to.name_of("payments")]
    assert "x-envoy-expected-rq-timeout-ms" in told["fields"], "the deadline goes on"


def test_host_chooses_nothing_that_no_route_names(to: Pod) -> None:
    told = to.around.told("-H", "Host: metadata.internal", f"http://{SERVICES['unnamed']}/")
    assert told["at"] == SERVICES["unnamed"]
    assert to.sidecar.routes("metadata.internal") == ["pass_through"]


def test_the_original_destination_may_be_a_routes_endpoint(to: Pod) -> None:
    assert to.around.told("http://elsewhere/")["at"] == SERVICES["elsewhere"]
    assert to.sidecar.routes("elsewhere") == [to.name_of("named")]


def test_a_pod_of_a_set_is_that_pod(to: Pod) -> None:
    for name in ("db-0.db", "db-1.db"):
        for _ in range(4):
            assert to.around.told(f"http://{name}:7000/")["at"] == SERVICES[name]


def test_grpc_calls_work(to: Pod) -> None:
    assert to.around.program("grpc", "greeter:50051") == "hello\n"
    assert to.sidecar.routes("greeter:50051") == [to.name_of("greeter")]


def test_tls_is_not_opened(to: Pod, whole: Pod, tmp_path_factory: pytest.TempPathFactory) -> None:
    told = to.around.told("-k", "https://tls/secret")
    assert told["line"] == "GET /secret HTTP/1.1"
    assert "traceparent" not in told["fields"]
    assert to.sidecar.routes("tls") == ["pass_through"]


@pytest.mark.parametrize("port", ["3306", "9999"], ids=["opaque port", "after a while"])
def test_a_server_that_speaks_first_is_heard(to: Pod, port: str) -> None:
    assert to.around.program("talk", "mysql", port, "-", "QUIT\\n") == f"hello {POD}\nyou said QUIT\n"
    assert to.sidecar.routes(f"{SERVICES['mysql']}:{port}") == ["pass_through"]


@pytest.mark.parametrize("port", ["6379", "7777"], ids=["opaque port", "detected"])
def test_a_client_that_speaks_no_http_is_passed_on(to: Pod, port: str) -> None:
    assert to.around.program("talk", "redis", port, "*1\\r\\n$4\\r\\nPING\\r\\n") == "+PONG\n"


def test_a_websocket_works(to: Pod) -> None:
    told = to.around.program("websocket", "chat", "80")
    assert told.startswith("HTTP/1.1 101 ")
    assert "hello" in told


def test_ipv6_works(to: Pod) -> None:
    told = to.around.told("http://[fd77::14]/six")
    assert (told["line"], told["at"], told["peer"]) == ("GET /six HTTP/1.1", "fd77::14", POD_6)
    assert to.sidecar.routes("[fd77::14]") == ["pass_through"]


def test_who_does_not_answer_is_told_as_before(to: Pod) -> None:
    status, _ = to.around.curl("http://payments:81/")
    assert status == (502 if not to.has_routes else 200)  # a route's upstream stands at port 80


def test_a_call_of_the_pod_to_its_own_service_arrives(to: Pod) -> None:
    """With a route, to an endpoint that is the pod itself; without one by way of the cluster, which sends it back."""
    told = to.around.told("http://own/")
    assert (told["line"], told["peer"]) == ("GET / HTTP/1.1", "127.0.0.1"), "the app hears its sidecar alone"
    assert to.sidecar.routes("own", 2) == ["app", to.name_of("own")]


def test_a_call_of_the_pod_to_itself_by_proxy_is_met_as_one_from_outside(to: Pod) -> None:
    told = to.around.told("-x", "http://127.0.0.1:15001", f"http://{POD}:8080/")
    assert (told["peer"], told["fields"]["x-forwarded-for"]) == ("127.0.0.1", POD)
    assert to.sidecar.routes(f"{POD}:8080", 2) == ["app", "pass_through"]


def test_a_call_of_the_pod_to_its_own_address_arrives(to: Pod) -> None:
    assert to.around.told(f"http://{POD}:8081/")["at"] == POD
    assert to.around.told("http://127.0.0.1:8080/")["at"] == "127.0.0.1"


# Calls to the pod


def test_a_call_to_the_app_goes_by_its_route(to: Pod) -> None:
    told = to.around.told(f"http://{POD}:8080/in", where=to.around.world)
    assert (told["line"], told["peer"]) == ("GET /in HTTP/1.1", "127.0.0.1")
    assert told["fields"]["x-forwarded-for"] == WORLD
    assert to.sidecar.routes(f"{POD}:8080") == ["app"]


def test_a_call_to_another_port_reaches_who_listens_there_by_the_pods_address_alone(to: Pod) -> None:
    told = to.around.told(f"http://{POD}:8081/in", where=to.around.world)
    assert (told["line"], told["at"], told["peer"]) == ("GET /in HTTP/1.1", POD, "127.0.0.6")
    assert to.sidecar.routes(f"{POD}:8081") == ["pass_through"]


def test_a_call_by_another_protocol_reaches_the_app(to: Pod) -> None:
    assert to.around.in_world(*PROGRAMS, "talk", POD, "8082", "*1\\r\\n$4\\r\\nPING\\r\\n") == "+PONG\n"


def test_a_call_by_ipv6_reaches_the_app_that_listens_there(to: Pod) -> None:
    server = to.around.serve(to.around.pod, "http", POD_6, 8084)
    told = to.around.told(f"http://[{POD_6}]:8084/six", where=to.around.world)
    assert (told["at"], told["peer"]) == (POD_6, "::6")
    assert told["fields"]["x-forwarded-for"] == WORLD_6
    server.terminate()


def test_a_port_at_which_nobody_listens_is_refused(to: Pod) -> None:
    status, _ = to.around.curl(f"http://{POD}:8099/", where=to.around.world)
    assert status == 502


@pytest.mark.parametrize("port", [15000, 15001])
def test_our_own_ports_are_closed_from_outside(to: Pod, port: int) -> None:
    status, body = to.around.curl(f"http://{POD}:{port}/", where=to.around.world)
    assert (status, body) == (0, "")


def test_the_probes_are_answered_from_outside(to: Pod) -> None:
    assert to.around.curl(f"http://{POD}:15021/readyz", where=to.around.world)[0] == 200


# What is told


def test_the_destinations_without_a_route_are_listed(to: Pod) -> None:
    to.around.told(f"http://{SERVICES['unnamed']}/")
    _, text = to.around.curl("http://127.0.0.1:15000/status")
    passed = json.loads(text)["pass_through"]
    assert f"{SERVICES['unnamed']}:80" in [one["destination"] for one in passed["last"]]
    shown = to.around.in_pod(sys.executable, "-m", "sidecar", "status", check=False)
    assert f"{SERVICES['unnamed']}:80" in shown


def test_a_route_of_the_app_may_lead_to_wherever_the_call_was_going(tmp_path: Path) -> None:
    """For an app that listens at the pod's own address alone."""
    routes = """\
upstreams: {here: {endpoints: [original]}, moved: {endpoints: ["10.77.0.2:8081"]}}
routes:
- {name: here, upstream: here}
- {name: moved, upstream: moved, match: {port: 8083}}
"""
    with namespaces() as around:
        around.in_pod(*INTERCEPT)
        around.serve(around.pod, "http", POD, 8081)
        around.serve(around.pod, "http", POD, 8082)
        sidecar = around.sidecar(tmp_path, LISTENERS + routes)
        for port in (8081, 8082):
            told = around.told(f"http://{POD}:{port}/in", where=around.world)
            assert told["fields"]["host"] == f"{POD}:{port}"
            assert sidecar.routes(f"{POD}:{port}") == ["here"]
        assert around.curl(f"http://{POD}:8099/", where=around.world)[0] == 502
        assert around.told(f"http://{POD}:8083/in", where=around.world)["line"] == "GET /in HTTP/1.1"
        assert sidecar.routes(f"{POD}:8083") == ["moved"], "the port that was called decides"


# The kubelet's probes


PROBES = {
    "app/liveness": {"httpGet": {"port": 8080, "path": "/healthz"}},
    "app/readiness": {"tcpSocket": {"port": 8081}},
    "app/startup": {"tcpSocket": {"port": 8099}},
}


def test_probes_tell_of_the_app_and_not_of_its_sidecar(tmp_path: Path) -> None:
    with namespaces() as around:
        around.in_pod(*INTERCEPT)
        app = around.serve(around.pod, "http", "0.0.0.0", 8080)
        around.serve(around.pod, "http", POD, 8081)
        around.sidecar(
            tmp_path, LISTENERS + WITHOUT_ROUTES, environ=f"SIDECAR_APP_PROBES={json.dumps(PROBES)}"
        )

        def probe(name: str) -> tuple[int, str]:
            return around.curl(f"http://{POD}:15021/app-probe/app/{name}", where=around.world)

        assert probe("liveness") == (200, "ok\n")
        assert probe("readiness") == (200, "ok\n"), "who listens at the pod's address alone"
        assert probe("startup")[0] == 503, "nobody listens, though the sidecar would take the connection"
        assert probe("other")[0] == 500
        statuses = [around.curl(f"http://{POD}:8080/fail", where=around.world)[0] for _ in range(7)]
        assert statuses == [500] * 5 + [503] * 2
        assert probe("liveness") == (200, "ok\n"), "an open breaker is no reason to restart the app"
        app.terminate()
        app.wait()
        assert probe("liveness")[0] == 503


# The same without rules, by `http_proxy` and CONNECT


PROXY = "http_proxy=http://127.0.0.1:15001"


@pytest.fixture(scope="module", params=["routes", "no routes"])
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    has_routes = request.param == "routes"
    routes = ROUTES if has_routes else WITHOUT_ROUTES
    with pod(tmp_path_factory.mktemp("proxied"), routes, is_intercepted=False) as made:
        made.has_routes = has_routes
        yield made


@pytest.fixture
def by_proxy(proxied: Pod) -> Pod:
    proxied.sidecar.forget()
    return proxied


@pytest.mark.parametrize("form", [[], ["--proxytunnel"]], ids=["absolute form", "CONNECT"])
@pytest.mark.parametrize("host", ["payments", "unnamed"])
def test_by_proxy_http_goes_by_its_route_or_on_its_way(by_proxy: Pod, host: str, form: list[str]) -> None:
    told = by_proxy.around.told("-x", "http://127.0.0.1:15001", *form, f"http://{host}/pay")
    assert (told["line"], told["at"]) == ("GET /pay HTTP/1.1", SERVICES[host])
    is_routed = host == "payments" and by_proxy.has_routes
    is_bytes = bool(form) and not is_routed
    expected = "payments" if is_routed else "pass_through"
    assert by_proxy.sidecar.routes(f"{host}:80" if is_bytes else host) == [expected]


def test_by_proxy_https_works(by_proxy: Pod) -> None:
    told = by_proxy.around.told("-k", "-x", "http://127.0.0.1:15001", "https://tls/secret")
    assert told["line"] == "GET /secret HTTP/1.1"
    assert by_proxy.sidecar.routes("tls:443") == ["pass_through"]


def test_by_proxy_grpc_works_and_has_its_route(by_proxy: Pod) -> None:
    assert by_proxy.around.program("grpc", "greeter:50051", environ=PROXY) == "hello\n"
    assert by_proxy.sidecar.routes("greeter:50051") == [by_proxy.name_of("greeter")]


@pytest.mark.parametrize("port", ["3306", "9999"])
def test_by_proxy_a_server_that_speaks_first_is_heard(by_proxy: Pod, port: str) -> None:
    told = by_proxy.around.program("talk", "mysql", port, "-", "QUIT\\n", environ=PROXY)
    assert told == f"hello {POD}\nyou said QUIT\n"


@pytest.mark.parametrize("port", ["6379", "7777"])
def test_by_proxy_a_client_that_speaks_no_http_is_passed_on(by_proxy: Pod, port: str) -> None:
    told = by_proxy.around.program("talk", "redis", port, "*1\\r\\n$4\\r\\nPING\\r\\n", environ=PROXY)
    assert told == "+PONG\n"


def test_by_proxy_a_websocket_works(by_proxy: Pod) -> None:
    told = by_proxy.around.program("websocket", "chat", "80", environ=PROXY)
    assert told.startswith("HTTP/1.1 101 ")


def test_by_proxy_the_metadata_service_is_closed(by_proxy: Pod) -> None:
    for form in ([], ["--proxytunnel"]):
        proxy = ["-x", "http://127.0.0.1:15001", *form]
        status, _ = by_proxy.around.curl(*proxy, "http://169.254.169.254/latest/")
        assert status in (403, 0)
        assert by_proxy.sidecar.logged(kind="access", status="403")


# Without the rule for the sidecar's own uid


def test_without_the_rule_for_its_uid_the_loop_is_refused(tmp_path: Path) -> None:
    with namespaces() as around:
        around.in_pod(*INTERCEPT, "--uid", str(UID + 1))
        around.serve(around.world, "http", SERVICES["unnamed"], 80)
        around.serve(around.world, "greeting", SERVICES["unnamed"], 3306)
        sidecar = around.sidecar(tmp_path, LISTENERS + WITHOUT_ROUTES)
        status, _ = around.curl(f"http://{SERVICES['unnamed']}/")
        assert status == 508, "of requests"
        sidecar.forget()
        talk = [*PROGRAMS, "talk", SERVICES["unnamed"], "3306", "-"]
        assert around.in_pod(*talk, check=False).strip() == "", "of bytes"
        assert sidecar.logged(kind="pass_through.loop")


# The rules


def test_the_rules_are_written_once_and_taken_out_whole() -> None:
    with namespaces() as around:
        before = {program: around.in_pod(program, "-t", "nat", "-S") for program in ("iptables", "ip6tables")}
        around.in_pod(*INTERCEPT)
        once = {program: around.in_pod(program, "-t", "nat", "-S") for program in before}
        around.in_pod(*INTERCEPT)
        assert {program: around.in_pod(program, "-t", "nat", "-S") for program in before} == once
        assert once != before
        around.in_pod(
            *INTERCEPT, "--skip-outbound-ports", "9092", "--skip-outbound-cidrs", "10.0.0.0/8,fd00::/8"
        )
        changed = around.in_pod("iptables", "-t", "nat", "-S")
        assert "--dport 9092 -j RETURN" in changed
        assert "169.254.0.0/16" not in changed
        for _ in range(2):
            around.in_pod(*INTERCEPT, "--remove")
            assert {program: around.in_pod(program, "-t", "nat", "-S") for program in before} == before


@pytest.fixture
def nft_alone(tmp_path: Path) -> str:
    """A PATH on which there is nft, and no iptables."""
    nft = shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if nft is None:
        pytest.skip("needs nft (Debian's nftables)")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nft").symlink_to(nft)
    return f"PATH={programs}"


def test_where_there_is_no_iptables_nft_does_it(tmp_path: Path, nft_alone: str) -> None:
    with namespaces() as around:
        for _ in range(2):
            around.in_pod("env", nft_alone, *INTERCEPT)
        around.serve(around.pod, "http", "127.0.0.1", 8080)
        around.serve(around.world, "http", SERVICES["payments"], 80)
        around.serve(around.world, "http", "fd77::14", 80)
        sidecar = around.sidecar(tmp_path, LISTENERS + ROUTES)
        assert around.told("http://payments/pay")["fields"]["x-envoy-expected-rq-timeout-ms"]
        assert around.told("http://[fd77::14]/six")["at"] == "fd77::14"
        assert around.told("http://own/")["at"] == "127.0.0.1"
        assert around.told(f"http://{POD}:8080/in", where=around.world)["fields"]["x-forwarded-for"] == WORLD
        assert sidecar.routes("payments") == ["payments"]
        assert sidecar.routes("[fd77::14]") == ["pass_through"]
        around.in_pod("env", nft_alone, *INTERCEPT, "--remove")
        assert around.in_pod("nft", "list", "tables").count("sidecar") == 0


def test_rules_of_the_other_program_go_once_new_ones_stand(nft_alone: str) -> None:
    with namespaces() as around:
        around.in_pod(*INTERCEPT)
        around.in_pod(*INTERCEPT, "--by", "nft")
        assert "SIDECAR" not in around.in_pod("iptables", "-t", "nat", "-S")
        around.in_pod(*INTERCEPT)
        assert around.in_pod("nft", "list", "tables").count("sidecar") == 0
        shown = around.in_pod("env", nft_alone, *INTERCEPT, "--dry-run")
        assert shown.startswith("# nft -f -\ntable ip sidecar_intercept\n")


def test_where_the_kernel_does_not_take_the_rules_of_iptables_nft_does_it(
    tmp_path: Path, nft_alone: str
) -> None:
    programs = Path(nft_alone.removeprefix("PATH="))
    for name in ("iptables", "iptables-restore", "ip6tables", "ip6tables-restore"):
        (programs / name).write_text(
            "#!/bin/sh\necho >&2 'Extension owner revision 0 not supported'\nexit 4\n"
        )
        (programs / name).chmod(0o755)
    with namespaces() as around:
        around.in_pod("env", nft_alone, *INTERCEPT)
        assert around.in_pod("nft", "list", "tables").count("sidecar") == 2
        by_iptables = ["env", nft_alone, *INTERCEPT, "--by", "iptables"]
        command = ["ip", "netns", "exec", around.pod, *by_iptables]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, "not supported" in done.stderr) == (1, True)


def test_a_dry_run_changes_nothing_and_shows_what_would_be() -> None:
    with namespaces() as around:
        before = around.in_pod("iptables", "-t", "nat", "-S")
        shown = around.in_pod(*INTERCEPT, "--dry-run", "--skip-inbound-ports", "9090")
        assert around.in_pod("iptables", "-t", "nat", "-S") == before
        assert "-A SIDECAR_INBOUND -p tcp --dport 9090 -j RETURN" in shown
        assert "ip6tables-restore" in shown


def test_without_the_rights_it_says_which_are_needed() -> None:
    with namespaces() as around:
        command = ["ip", "netns", "exec", around.pod, "setpriv", "--bounding-set=-net_admin", *INTERCEPT]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "NET_ADMIN" in done.stderr
