"""A pod and the world around it, as two network namespaces of the test's own: root and iptables are needed.

The pod has an address of each family, its sidecar runs under the uid that the rules leave out, and everything else in
it under another. Names are those of a hosts file that processes in the pod see. Nothing is left behind.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

import pytest

from tests.support.pod_programs import Server

POD, POD_6 = "10.77.0.2", "fd77::2"
WORLD, WORLD_6 = "10.77.0.1", "fd77::1"
SERVICES = {name: f"10.77.0.{number}" for number, name in enumerate(
    ("payments", "greeter", "db-0.db", "db-1.db", "elsewhere", "mysql", "redis", "tls", "chat", "unnamed"), 10
)}  # fmt: skip
SERVICE_IP = "10.77.0.100"
"""Of the pod itself: the world sends it back to the pod, as kube-proxy does."""
UID = 15015
READY_SECONDS = 100.0
_NUMBERS = itertools.count()
ROOT = Path(__file__).parents[2]
PROGRAMS = [sys.executable, "-m", "tests.support.pod_programs"]


def run(*command: str, check: bool = True, given: str = "") -> str:
    """What a command prints; `given`: what it reads."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False, input=given
    )
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def needed() -> None:
    """Skip the test where namespaces cannot be made."""
    if os.getuid() != 0 or not all(map(shutil.which, ("ip", "iptables", "ip6tables", "setpriv"))):
        pytest.skip("needs root, iproute2, iptables and setpriv")


class Namespaces:
    """Both of them, and what runs there."""

    def __init__(self, pod: str, world: str, stack: ExitStack) -> None:
        self.pod = pod
        self.world = world
        self._stack = stack

    def run_in(self, namespace: str, *command: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", namespace, *command, check=check)

    def in_pod(self, *command: str, check: bool = True) -> str:
        """What a command of the app's prints."""
        return self.run_in(self.pod, *command, check=check)

    def in_world(self, *command: str, check: bool = True) -> str:
        return self.run_in(self.world, *command, check=check)

    def program(self, *arguments: str, environ: str = "") -> str:
        """What a client of `pod_programs` prints, with one more variable, NAME=VALUE."""
        return self.in_pod(*(["env", environ] if environ else []), *PROGRAMS, *arguments)

    def curl(self, *arguments: str, where: str = "") -> tuple[int, str]:
        """Status and body of an answer; 0 where there is none."""
        namespace = where or self.pod
        command = ["curl", "-s", "-m", "20", "-w", "\n%{http_code}", *arguments]
        text = run("ip", "netns", "exec", namespace, *command, check=False)
        body, _, status = text.rpartition("\n")
        return int(status), body

    def told(self, *arguments: str, where: str = "") -> dict[str, Any]:
        """What the HTTP app of `pod_programs` says that it was asked."""
        status, body = self.curl(*arguments, where=where)
        assert status == 200, (status, body)
        told: dict[str, Any] = json.loads(body)
        return told

    def folder(self) -> Path:
        """One that every user may write to, until the end of the block. Not below pytest's: each session that begins
        closes the folder of all sessions to other users."""
        made = Path(self._stack.enter_context(TemporaryDirectory()))
        made.chmod(0o777)
        return made

    def start(self, namespace: str, *command: str, log: Path | None = None) -> subprocess.Popen[str]:
        """A process that runs until the end of the block."""
        output: TextIO | int = subprocess.PIPE if log is None else self._stack.enter_context(log.open("w"))
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command], stdout=output, text=True, cwd=ROOT
        )
        self._stack.callback(stop, process)
        return process

    def serve(self, namespace: str, name: str, address: str, port: int) -> subprocess.Popen[str]:
        """A server of `pod_programs`, once it listens."""
        return self.serve_all(namespace, Server(name, address, port))

    def serve_all(self, namespace: str, *servers: Server) -> subprocess.Popen[str]:
        """Several in one process, once all of them listen."""
        process = self.start(namespace, *PROGRAMS, "serve", *(server.words for server in servers))
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def sidecar(self, folder: Path, config: str, *, uid: int = UID, environ: str = "") -> Sidecar:
        """A sidecar in the pod, once it is ready. `environ`: one more variable of its, NAME=VALUE."""
        file = folder / "sidecar.yaml"
        file.write_text(config)
        for one in (folder, *folder.parents):
            if one.owner() == "root" and not one.stat().st_mode & 0o001:
                one.chmod(one.stat().st_mode | 0o055)
        log = folder / "log"
        rights = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        as_uid = ["setpriv", f"--reuid={uid}", "--clear-groups", *rights]
        as_uid += ["env", environ] if environ else []
        process = self.start(self.pod, *as_uid, sys.executable, "-m", "sidecar", "run", str(file), log=log)
        wait = ["healthcheck", str(file), "--wait", f"{READY_SECONDS:.0f}s", "-q"]
        self.in_pod(sys.executable, "-m", "sidecar", *wait)
        return Sidecar(self, process, log)


class Sidecar:
    """One that runs, and what its log says."""

    def __init__(self, namespaces: Namespaces, process: subprocess.Popen[str], log: Path) -> None:
        self._namespaces = namespaces
        self._process = process
        self._log = log
        self._seen = 0

    def forget(self) -> None:
        """Look at what is logged from now on."""
        self._seen = self._log.stat().st_size

    def lines(self) -> list[dict[str, Any]]:
        """All that it has logged since `forget`, but for a line that is not whole yet."""
        text = self._log.read_bytes()[self._seen :].decode()
        whole = text[: text.rfind("\n") + 1]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def logged(self, count: int = 1, **wanted: str) -> list[dict[str, Any]]:
        """The lines in which these members stand so, once there are so many."""
        for _ in range(400):
            found = [
                line for line in self.lines() if all(str(line.get(name)) == wanted[name] for name in wanted)
            ]
            if len(found) >= count:
                return found
            self._namespaces.in_pod("sleep", "0.05")
        raise AssertionError(f"it has not logged {wanted} {count} times: {self.lines()}")

    def routes(self, host: str, count: int = 1) -> list[str | None]:
        """Of the exchanges with this host that have ended, sorted, once there are so many."""
        found = self.logged(count, kind="access", host=host)
        return sorted((line["route"] for line in found), key=str)


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(40)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def namespaces(hosts: Sequence[str] = ()) -> Iterator[Namespaces]:
    """`hosts`: further lines of the pod's hosts file."""
    needed()
    mark = f"{os.getpid() % 100_000}n{next(_NUMBERS)}"
    pod, world = f"scp{mark}", f"scw{mark}"
    with ExitStack() as stack:
        for name in (world, pod):
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "del", name, check=False)
        _link(pod, world)
        folder = Path("/etc/netns") / pod
        folder.mkdir(parents=True)
        stack.callback(shutil.rmtree, folder)
        lines = [f"{address} {name}" for name, address in SERVICES.items()]
        lines += [f"{SERVICE_IP} own", "127.0.0.1 localhost", *hosts]
        (folder / "hosts").write_text("\n".join([*lines, ""]))
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        yield Namespaces(pod, world, stack)


def _link(pod: str, world: str) -> None:
    """A pair of interfaces, addresses of both families, and the way back to the pod by its Service's address."""
    run("ip", "link", "add", "eth0", "netns", pod, "type", "veth", "peer", "name", "eth0", "netns", world)
    for namespace in (pod, world):
        run("ip", "netns", "exec", namespace, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", check=False)
    own = (f"addr add {address}/32 dev lo" for address in SERVICES.values())
    own_6 = (f"addr add {_six(address)}/128 dev lo nodad" for address in SERVICES.values())
    _ip(world, [*_addresses(WORLD, WORLD_6), *own, *own_6])
    _ip(pod, [*_addresses(POD, POD_6), *_ways(SERVICES.values())])
    run("ip", "netns", "exec", world, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    for rule in (
        f"PREROUTING -d {SERVICE_IP} -p tcp --dport 80 -j DNAT --to-destination {POD}:8080",
        f"POSTROUTING -s {POD} -d {POD} -j MASQUERADE",
    ):
        run("ip", "netns", "exec", world, "iptables", "-t", "nat", "-A", *rule.split())


def _ip(namespace: str, lines: Sequence[str]) -> None:
    """All that in one process."""
    run("ip", "-n", namespace, "-batch", "-", given="\n".join(lines))


def _six(address: str) -> str:
    return f"fd77::{address.rpartition('.')[2]}"


def _addresses(four: str, six: str) -> list[str]:
    return [
        "link set lo up",
        f"addr add {four}/24 dev eth0",
        f"addr add {six}/64 dev eth0 nodad",
        "link set eth0 up",
    ]


def _ways(services: Iterable[str]) -> list[str]:
    """Out of the pod."""
    fours = [f"route add {address}/32 via {WORLD}" for address in (*services, SERVICE_IP)]
    sixes = [f"route add {_six(address)}/128 via {WORLD_6}" for address in services]
    return [f"route add default via {WORLD}", f"route add default via {WORLD_6}", *fours, *sixes]
