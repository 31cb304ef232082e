"""`python -m tests.bench.compare`: the sidecar beside Envoy, HAProxy and nginx, on this machine, now.

The figure is CPU time of the proxy's processes for each completed request. Proxy on one core, upstream and
load on the other; rounds alternate between targets; a sample with an error or with other work on a core does
not count. `--log` has each write an access log. `--tls` measures TLS with clients, kept and with a handshake for each
request. `--http2` measures HTTP/2 on both sides, GET and gRPC: h2load, the sidecar and Envoy, and nghttpd as the
upstream. The target `compiled` is the sidecar's compiled build: made once for the same sources, in some minutes, and
kept where `--compiled` says.

Exit codes: 0 measured, 1 a sample had an error or never ran undisturbed, 2 wrong use, or a target that does
not run.
"""

import argparse
import datetime
import json
import os
import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.bench import install, report
from tests.bench.load import GRPC_MESSAGE, GRPC_PATH, HTTP2_SCENARIOS, SCENARIOS, TLS_SCENARIOS, Scenario
from tests.bench.machine import Cores, SetupError, description, pick_cores
from tests.bench.program import run, say, unwind_on_sigterm
from tests.bench.rounds import Bench, Plan, Results
from tests.bench.targets import (
    DIRECT,
    HTTP2_TARGETS,
    LOGGED_TARGETS,
    RELAY,
    TARGETS,
    TLS_TARGETS,
    TargetError,
    await_ok,
    elsewhere,
    make_certificate,
    pinned,
)
from tests.bench.upstream import SMALL_BYTES
from tests.support.compiled import NotBuilt, compiled_copy, usual_folder
from tests.support.ports import free_ports

COMPILED = "compiled"
NAMES = [DIRECT, *TARGETS, COMPILED]


def main() -> int:
    """Parse, install, measure, print; the exit code."""
    options = arguments().parse_args()
    plan = plan_of(options)
    unwind_on_sigterm()
    try:
        cores = pick_cores()
        needed = programs(plan)
        install.ensure(needed, allowed=options.install == "auto")
        if COMPILED in plan.targets and not options.compiled.exists():
            say(f"building the compiled sidecar in {options.compiled}: some two minutes")
            compiled_copy(options.compiled)
        environment = {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
            "machine": description(),
            "command": shlex.join(["python", "-m", "tests.bench.compare", *sys.argv[1:]]),
            "versions": ", ".join(
                f"{name} {install.version(name)}" for name in sorted(needed - {"cc"} | {"sidecar"})
            ),
        }
        results = measure(plan, cores)
    except (SetupError, TargetError, NotBuilt) as error:
        say(str(error))
        return 2
    print(report.markdown(plan, results, environment))
    if options.json:
        text = json.dumps(report.plain(plan, results, environment), indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n")
    return 1 if results.errors or results.given_up else 0


def programs(plan: Plan) -> set[str]:
    """The programs that a plan needs, the sidecar itself aside."""
    loaders = {"h2load" if scenario.paced or scenario.streams else "wrk" for scenario in plan.scenarios}
    if any(scenario.streams for scenario in plan.scenarios):
        loaders.add("nghttpd")
    compiler = {"cc"} if COMPILED in plan.targets else set()
    return loaders | compiler | {"envoy", "haproxy", "nginx"} & set(plan.targets)


def measure(plan: Plan, cores: Cores) -> Results:
    """The plan carried out, with the upstream running beside it.

    Raises:
        TargetError: the upstream or a target does not run.
    """
    os.sched_setaffinity(0, {cores.load})
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name, ExitStack() as stack:
        directory = Path(name)
        if any(scenario.is_tls for scenario in plan.scenarios):
            make_certificate(directory)
        ports = free_ports(2)
        is_http2 = any(scenario.streams for scenario in plan.scenarios)
        if is_http2:
            commands = [file_server(directory, ports[0]), grpc_server(directory, ports[1])]
        else:
            commands = [[*HTTP1_UPSTREAM, str(ports[0])]]
        logs = (directory / f"upstream-{number}.log" for number in range(len(commands)))
        upstreams = [
            stack.enter_context(pinned(command, core=cores.load, log=log))
            for command, log in zip(commands, logs, strict=False)
        ]
        if not is_http2:  # the targets' own readiness shows it else
            await_ok(upstreams[0], ports[0], "/api/small")
        bench = Bench(plan, cores, [one.pid for one in upstreams], *ports, directory, say)
        bench.run()
    return bench.results


HTTP1_UPSTREAM = [sys.executable, "-m", "tests.bench.upstream"]


def file_server(directory: Path, port: int) -> list[str]:
    """nghttpd, which serves the small answer as a file over HTTP/2."""
    return _nghttpd(directory / "files", "/api/small", b"s" * SMALL_BYTES, port)


def grpc_server(directory: Path, port: int) -> list[str]:
    """nghttpd once more: a message as a file, whose answer ends with gRPC's status."""
    return _nghttpd(directory / "grpc", GRPC_PATH, GRPC_MESSAGE, port, "--trailer=grpc-status: 0")


def _nghttpd(root: Path, path: str, content: bytes, port: int, *options: str) -> list[str]:
    answer = root / path.lstrip("/")
    answer.parent.mkdir(parents=True)
    answer.write_bytes(content)
    command = [install.program("nghttpd"), "--no-tls", "--address=127.0.0.1", f"--htdocs={root}", *options]
    return [*command, str(port)]


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.compare", description=(__doc__ or "").split("\n")[0]
    )
    known = [scenario.name for scenario in SCENARIOS]
    http2_known = ", ".join(scenario.name for scenario in HTTP2_SCENARIOS)
    parser.add_argument(
        "--targets", help=f"comma-separated, of {', '.join(NAMES)}; with --http2 not all of them"
    )
    parser.add_argument(
        "--scenarios", help=f"comma-separated, of {', '.join(known)}; with --http2 {http2_known}"
    )
    parser.add_argument("--http2", action="store_true", help="HTTP/2 on both sides, beside Envoy")
    parser.add_argument("--log", action="store_true", help="an access log of JSON for every request")
    parser.add_argument(
        "--tls", action="store_true", help="TLS with clients: kept connections, and handshakes"
    )
    parser.add_argument("--rounds", type=int, help="rounds over all targets (5; quick: 2)")
    parser.add_argument("--seconds", type=int, help="whole seconds of each sample (5; quick: 2)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a look, not a result")
    parser.add_argument(
        "--noise", type=float, default=5, help="percent of a core that other work may take (5)"
    )
    parser.add_argument("--retries", type=int, default=3, help="tries after a disturbed one (3)")
    parser.add_argument(
        "--install", choices=("auto", "never"), default="auto", help="install missing programs (auto)"
    )
    parser.add_argument(
        "--before",
        type=Path,
        metavar="DIR",
        help="a checkout of an earlier commit, measured as one more target",
    )
    parser.add_argument(
        "--compiled",
        type=Path,
        metavar="DIR",
        default=usual_folder(),
        help="where the compiled build is, or is made if DIR is not there yet (a folder for these sources in /tmp)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    return parser


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that the options ask for. Raises SystemExit on a name or number that is not possible."""
    known: tuple[Scenario, ...] = SCENARIOS
    if options.http2:
        TARGETS.clear()
        TARGETS.update(HTTP2_TARGETS)
        known = HTTP2_SCENARIOS
    if options.tls:
        TARGETS.clear()
        TARGETS.update(TLS_TARGETS)
        known = TLS_SCENARIOS
    if options.log:
        TARGETS.clear()
        TARGETS.update(LOGGED_TARGETS)
    TARGETS[COMPILED] = elsewhere(COMPILED, options.compiled.resolve(), TARGETS["sidecar"])
    names, scenario_names = [DIRECT, *TARGETS], [scenario.name for scenario in known]
    if options.tls:
        names.remove(DIRECT)  # the upstream speaks none
    usual = ",".join(
        name for name in names if name != RELAY
    )  # which is no proxy, but what one cannot go below
    targets = _chosen(options.targets or usual, names)
    if options.before:
        TARGETS["before"] = elsewhere("before", options.before.resolve(), TARGETS["sidecar"])
        targets.append("before")
    scenarios = _chosen(options.scenarios or ",".join(scenario_names), scenario_names)
    rounds, seconds = (2, 2) if options.quick else (5, 5)
    rounds, seconds = options.rounds or rounds, options.seconds or seconds
    if min(rounds, seconds) < 1 or options.noise <= 0 or options.retries < 0:
        arguments().error("--rounds, --seconds and --noise start above 0, --retries at 0")
    chosen = [scenario for scenario in known if scenario.name in scenarios]
    return Plan(targets, chosen, rounds, seconds, options.noise / 100, options.retries)


def _chosen(text: str, known: list[str]) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        arguments().error(f"{text!r}: known are {', '.join(known)}")
    return names


if __name__ == "__main__":
    run(main)
