"""Builds the image of the init container with buildah, and has it write rules: python -m tests.bench.init_image.

As `tests.bench.image`, with the same flags and needs, and `ip`. In a network namespace of its own, with the rights
that `sidecar inject --intercept` gives the container and none besides, it writes the rules by iptables and by nft,
and takes them out. Exit code 1 where something is wrong.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.image import based, built, in_work_folder

LISTED = {
    "iptables": ["iptables", "-t", "nat", "-S", "SIDECAR_OUTBOUND"],
    "nft": ["nft", "list", "table", "ip", "sidecar_intercept"],
}
"""What shows the rules, by the program that wrote them."""
RIGHTS = "+net_admin,+net_raw,+sys_chroot"
"""The last one is not the container's: `chroot` needs it here, where a container has its root by other means."""


class Container:
    """The image's root, as root in a namespace without the other rights of root."""

    def __init__(self, root: Path, namespace: str) -> None:
        self._root = root
        self._namespace = namespace

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        rights = ["setpriv", f"--bounding-set=-all,{RIGHTS}", f"--inh-caps=-all,{RIGHTS}", "--no-new-privs"]
        inside = ["ip", "netns", "exec", self._namespace, *rights, "chroot", str(self._root), *command]
        environment = {
            "PATH": "/opt/sidecar/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "XTABLES_LOCKFILE": "/dev/shm/xtables.lock",
        }
        return subprocess.run(inside, capture_output=True, text=True, check=False, env=environment)


def wrong_with(container: Container) -> Iterator[str]:
    """What it does not do that it should."""
    version = container.run("sidecar", "--version")
    print(f"  --version: {version.stdout.strip()}")
    for by, listed in LISTED.items():
        for words in (
            ["intercept", "--by", by],
            ["intercept", "--by", by],
            ["intercept"],
            ["intercept", "--by", by],
        ):
            done = container.run("sidecar", *words)
            if done.returncode:
                yield f"{' '.join(words)}: {done.stderr.strip()}"
        shown = container.run(*listed)
        print(f"  {by}: {len(shown.stdout.splitlines())} lines of rules")
        if "15015" not in shown.stdout:
            yield f"{by}: the rules are not there: {shown.stderr.strip()}"
        container.run("sidecar", "intercept", "--remove")
        if container.run(*listed).returncode == 0:
            yield f"{by}: the rules are still there"


def check(work: Path, python: Path) -> int:
    began = time.monotonic()
    root = built(work, based(work, python), 1, "--target", "init")
    print(f"build: {time.monotonic() - began:.0f} s", flush=True)
    (root / "dev/shm").mkdir(exist_ok=True)
    namespace = f"init{os.getpid()}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        wrong = list(wrong_with(Container(root, namespace)))
    finally:
        subprocess.run(["ip", "netns", "del", namespace], check=True)
    print("\n".join(wrong) or "nothing is wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    if shutil.which("ip") is None:
        sys.exit("ip is not here: apt-get install iproute2")
    sys.exit(in_work_folder(check, __doc__))
