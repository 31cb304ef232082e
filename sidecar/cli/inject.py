"""`sidecar inject [-f] FILE…`: Kubernetes YAML in, the same with the sidecar in it out."""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Final

from sidecar.kubernetes.choices import Mode
from sidecar.kubernetes.inject import Injected, inject_all, uninject
from sidecar.kubernetes.network_policy import network_policies
from sidecar.kubernetes.positions import ManifestError
from sidecar.kubernetes.settings import OWN_PORTS, Settings, default_image, read_setting

EXIT_LEFT = 1
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
    parser.add_argument(
        "--ignore-uninjectable",
        action="store_true",
        help="exit 0 although a pod could not be injected, such as one on the host's network; else 1",
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
    flags.add_argument(
        "--intercept",
        action="store_true",
        help="have the kernel send the pod's connections through the sidecar, instead of --http-proxy",
    )
    flags.add_argument(
        "--proxy-init", action="store_true", help="with --http-proxy: in its init containers too"
    )
    for name, metavar, told in _SETTINGS:
        _add_setting(flags, name, metavar, told)
    for name in OWN_PORTS:
        _add_setting(flags, name, "PORT", "as in the configuration")
    flags.add_argument(
        "--env",
        type=_setting("env"),
        action="extend",
        metavar="NAME=VALUE",
        help="a variable of the sidecar's, for ${NAME} in the configuration; may be given several times",
    )


_SETTINGS: Final = (
    ("no_proxy", "HOSTS", "called directly; added to the app's own no_proxy"),
    ("no_grpc_proxy", "HOSTS", "called directly by gRPC clients, beside those of no_proxy"),
    ("proxy_containers", "NAMES", "with --http-proxy: in these containers alone"),
    ("init_image", "IMAGE", "with --intercept: writes the rules; default: that of --image, named …-init"),
    ("skip_inbound_ports", "PORTS", "with --intercept: of the app, reached without the sidecar"),
    ("skip_outbound_ports", "PORTS", "with --intercept: of others, reached without the sidecar"),
    ("skip_outbound_cidrs", "NETWORKS", "with --intercept: reached without the sidecar"),
    ("app_port", "PORT", "default: a guess by the app's containerPorts, which is told"),
    ("app_protocol", "http1|http2", "default: what the port's name, its Service or a probe say"),
    ("opaque_ports", "PORTS", "that speak no HTTP, beside the well-known ones"),
    ("tls_secret", "NAME", "a Secret with tls.crt, tls.key and ca.crt, mounted at /etc/sidecar-tls"),
    ("image_pull_policy", "Always|IfNotPresent|Never", "default: Kubernetes' own"),
    ("pull_secrets", "NAMES", "added to the pod's imagePullSecrets"),
    ("run_as_user", "UID|unset", "default: 65532; unset where the cluster gives one, as OpenShift does"),
    ("cpu", "QUANTITY", "requested"),
    ("cpu_limit", "QUANTITY", "default: none"),
    ("memory", "QUANTITY", "requested, and the limit"),
)


def _add_setting(flags: argparse._ArgumentGroup, name: str, metavar: str, told: str) -> None:
    flag = "--" + name.replace("_", "-")
    flags.add_argument(flag, type=_setting(name), metavar=metavar, help=told)


def _setting(name: str) -> Callable[[str], object]:
    """A flag's value is read as the annotation's."""

    def read(text: str) -> object:
        try:
            return read_setting(name, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def settings_of(options: argparse.Namespace) -> Settings:
    """What the flags of `add_settings` say.

    Raises:
        ValueError: they cannot hold together.
    """
    given = {item.name: getattr(options, item.name, None) for item in fields(Settings)}
    given["env"] = tuple(given["env"] or ())
    return Settings(**{name: value for name, value in given.items() if value is not None})


def main(options: argparse.Namespace) -> int:
    """Write the result to stdout, and nothing if any file is bad.

    Returns:
        0; 1 if a pod could not be injected: it is told, and in the result as it was; 2 with a message on stderr.
    """
    files = [*options.filename, *options.files] or ["-"]
    if wrong := _wrong_use(options):
        print(f"sidecar inject: {wrong}", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        settings = settings_of(options)
        with _no_collections():
            results = _results(files, options, settings)
    except (ManifestError, ValueError) as error:
        print(f"sidecar inject: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        print(f"sidecar inject: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_BAD_INPUT
    sys.stdout.buffer.write(_joined([result.text for result in results]).encode())
    sys.stdout.buffer.flush()
    if not options.quiet:
        for file, result in zip(files, results, strict=True):
            _tell(file, result, options)
    return EXIT_LEFT if any(result.left for result in results) and not options.ignore_uninjectable else 0


def _tell(file: str, result: Injected, options: argparse.Namespace) -> None:
    for note in result.notes:
        print(note, file=sys.stderr)
    if not result.pods and not result.notes and not options.uninject:
        print(f"{_named(file)}: nothing to inject: no object in it has a pod template", file=sys.stderr)
    elif options.uninject and not result.notes:
        print(f"{_named(file)}: nothing to take out: no pod in it has the sidecar", file=sys.stderr)


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """A tree of YAML has no cycles, and looking for some in it took four tenths of the whole time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _wrong_use(options: argparse.Namespace) -> str:
    """Flags that say two things, in words; empty if there are none."""
    if options.egress and not options.network_policy:
        return "--egress is a part of a NetworkPolicy: give --network-policy too"
    if options.network_policy and (options.uninject or options.rewrite_services):
        return "--network-policy writes nothing but policies: leave --uninject and --rewrite-services out"
    return ""


def _results(files: list[str], options: argparse.Namespace, settings: Settings) -> list[Injected]:
    """Of all files together: a Service may stand in another one than its pods."""
    sources = [(_read(file), _named(file)) for file in files]
    if options.network_policy:
        return [network_policies(*source, settings, with_egress=options.egress) for source in sources]
    if options.uninject:
        return [uninject(*source) for source in sources]
    return inject_all(sources, settings, rewrite_services=options.rewrite_services)


def _named(file: str) -> str:
    return "stdin" if file == "-" else file


def _read(file: str) -> str:
    """Raises: OSError; ValueError for what is not UTF-8."""
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{_named(file)}:{line}: not UTF-8") from error


def _joined(texts: list[str]) -> str:
    """Several files as one stream of documents."""
    pieces = []
    for index, text in enumerate(texts):
        if index and not text.lstrip("\ufeff").startswith("---"):
            pieces.append("---\n")
        is_last = index + 1 == len(texts)
        pieces.append(text if is_last or text.endswith("\n") else text + "\n")
    return "".join(pieces)
