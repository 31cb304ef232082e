"""`sidecar inject [-f] FILE…`: Kubernetes YAML in, the same with the sidecar in it out."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from sidecar.kubernetes.inject import Injected, inject, uninject
from sidecar.kubernetes.network_policy import network_policies
from sidecar.kubernetes.positions import ManifestError
from sidecar.kubernetes.settings import OWN_PORTS, Mode, Settings, default_image

EXIT_BAD_INPUT = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="Kubernetes YAML or JSON; `-` is stdin")
    parser.add_argument("-f", "--filename", action="append", default=[], metavar="FILE", help="as FILE")
    parser.add_argument("--uninject", action="store_true", help="take the sidecar out again")
    parser.add_argument(
        "--rewrite-services",
        action="store_true",
        help="send the ports of Services that go to an injected app to the sidecar's inbound listener",
    )
    parser.add_argument(
        "--network-policy",
        action="store_true",
        help="write NetworkPolicies for the pods instead: in through the sidecar alone, not to the app's own ports",
    )
    parser.add_argument(
        "--egress",
        action="store_true",
        help="with --network-policy: out to everywhere but the cloud's metadata addresses",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no line on stderr for each object")
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The flags for `Settings`; a pod's annotations `sidecar.io/…` of the same names win over them."""
    flags = parser.add_argument_group("the sidecar", "annotations sidecar.io/… of the same names win")
    flags.add_argument("--image", default=default_image(), help="default: %(default)s")
    flags.add_argument(
        "--config-map", default="sidecar-config", help="holds sidecar.yaml; default: %(default)s"
    )
    flags.add_argument(
        "--mode",
        type=Mode,
        choices=list(Mode),
        default=Mode.NATIVE,
        metavar="native|container",
        help="native needs Kubernetes 1.29; default: native",
    )
    flags.add_argument(
        "--http-proxy", action="store_true", help="set http_proxy and no_proxy in the app's containers"
    )
    flags.add_argument("--no-proxy", metavar="HOSTS", help="value of no_proxy")
    flags.add_argument("--app-port", type=int, metavar="PORT", help="default: the app's first containerPort")
    for name in OWN_PORTS:
        flag = "--" + name.replace("_", "-")
        flags.add_argument(flag, type=int, metavar="PORT", help="as in the configuration")
    flags.add_argument(
        "--tls-secret",
        metavar="NAME",
        help="a Secret with tls.crt, tls.key and ca.crt, mounted at /etc/sidecar-tls",
    )
    flags.add_argument(
        "--endpoint-slices",
        action="store_true",
        help="mount a token of the sidecar's own, for `kubernetes://` endpoints",
    )
    flags.add_argument("--cpu", help="requested")
    flags.add_argument("--memory", help="requested, and the limit")


def settings_of(options: argparse.Namespace) -> Settings:
    """What the flags of `add_settings` say.

    Raises:
        ValueError: they cannot hold together.
    """
    given = {item.name: getattr(options, item.name, None) for item in fields(Settings)}
    return Settings(**{name: value for name, value in given.items() if value is not None})


def main(options: argparse.Namespace) -> int:
    """Write the result to stdout, and nothing if any file is bad.

    Returns:
        0, or 2 with a message on stderr.
    """
    files = [*options.filename, *options.files] or ["-"]
    if wrong := _wrong_use(options):
        print(f"sidecar inject: {wrong}", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        settings = settings_of(options)
        results = [_one(file, options, settings) for file in files]
    except (ManifestError, ValueError) as error:
        print(f"sidecar inject: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        print(f"sidecar inject: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_BAD_INPUT
    sys.stdout.buffer.write(_joined([result.text for result in results]).encode())
    sys.stdout.buffer.flush()
    if not options.quiet:
        for note in [note for result in results for note in result.notes]:
            print(note, file=sys.stderr)
    return 0


def _wrong_use(options: argparse.Namespace) -> str:
    """Flags that say two things, in words; empty if there are none."""
    if options.egress and not options.network_policy:
        return "--egress is a part of a NetworkPolicy: give --network-policy too"
    if options.network_policy and (options.uninject or options.rewrite_services):
        return "--network-policy writes nothing but policies: leave --uninject and --rewrite-services out"
    return ""


def _one(file: str, options: argparse.Namespace, settings: Settings) -> Injected:
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    name = "stdin" if file == "-" else file
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{name}:{line}: not UTF-8") from error
    if options.network_policy:
        return network_policies(text, name, settings, with_egress=options.egress)
    if options.uninject:
        return uninject(text, name)
    return inject(text, name, settings, rewrite_services=options.rewrite_services)


def _joined(texts: list[str]) -> str:
    """Several files as one stream of documents."""
    pieces = []
    for index, text in enumerate(texts):
        if index and not text.lstrip("\ufeff").startswith("---"):
            pieces.append("---\n")
        is_last = index + 1 == len(texts)
        pieces.append(text if is_last or text.endswith("\n") else text + "\n")
    return "".join(pieces)
