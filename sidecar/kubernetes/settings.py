"""What an injected sidecar should be like: flags give the default, a pod's annotations win.

An annotation belongs to the pod template; on the workload it counts too, and the template's own wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError
from ipaddress import ip_network

from sidecar.core.dataclass import dataclass
from sidecar.core.installed import version
from sidecar.kubernetes.choices import (
    MAX_USER_ID,
    SHOWN,
    AppProtocol,
    ClusterUser,
    Mode,
    Pairs,
    PullPolicy,
    flag,
    is_flag,
    read,
    text_of,
)

PREFIX = "sidecar.io/"
INJECT = PREFIX + "inject"
STATUS = PREFIX + "status"
"""Written by the injection: what it did, so that it can be undone."""
OWN_PORTS = ("inbound_port", "outbound_port", "admin_port", "probes_port")
"""Fields of `Settings`: where the sidecar listens, so that nobody else in the pod can."""
_CPU = re.compile(r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,3})?|(?=.*[1-9])[0-9]{1,9}m")
_MEMORY = re.compile(r"(?=.*[1-9])[0-9]{1,12}(\.[0-9]{1,6})?(k|M|G|T|Ki|Mi|Gi|Ti)?")
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_HOSTS = re.compile(r"[A-Za-z0-9.,:*/_\[\]-]*")
# registry:port/path/name:tag@digest, as container runtimes read it
_IMAGE = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]|/(?=[a-z0-9])|:(?=[\w]))*(@[a-z0-9+._-]+:[0-9a-fA-F]{32,128})?"
)
_SHAPES = {
    "image": (
        _IMAGE,
        "reference of an image, such as registry.example/sidecar:1.0",
    ),
    "init_image": (_IMAGE, "reference of an image, such as registry.example/sidecar-init:1.0"),
    "config_map": (_DNS_NAME, "name of a ConfigMap"),
    "tls_secret": (_DNS_NAME, "name of a Secret"),
    "no_proxy": (_HOSTS, "list of hosts and networks, parted by commas"),
    "no_grpc_proxy": (_HOSTS, "list of hosts and networks, parted by commas"),
    "cpu": (_CPU, "quantity of CPU, such as 100m or 1"),
    "cpu_limit": (_CPU, "quantity of CPU, such as 500m or 1"),
    "memory": (_MEMORY, "quantity of memory, such as 128Mi"),
}
"""Of texts that come from annotations: whoever may label a pod writes nothing else into its containers."""
_NAME_OF_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_MAX_VALUE = 253


@dataclass(frozen=True, slots=True)
class Settings:
    """One injection's choices. The name of a field with dashes is its annotation: `sidecar.io/app-port`."""

    image: str
    config_map: str = "sidecar-config"
    """Holds `sidecar.yaml`; it must be in the pod's namespace."""
    mode: Mode = Mode.NATIVE
    endpoint_slices: bool = False
    """Mount a token of the sidecar's own, by which it may watch EndpointSlices (`kubernetes://` endpoints)."""
    http_proxy: bool = False
    """Set http_proxy and no_proxy in the app's containers, so that its calls go through the sidecar."""
    no_proxy: str = "localhost,127.0.0.1,::1,169.254.169.254"
    """Added to what the app has of its own."""
    no_grpc_proxy: str | None = None
    """Hosts that gRPC clients call directly, beside those of `no_proxy`; None: those of `no_proxy` alone."""
    proxy_containers: tuple[str, ...] = ()
    """The containers that get the proxy's variables; none named is all."""
    proxy_init: bool = False
    """Init containers too: they run after a native sidecar has started."""
    intercept: bool = False
    """Have the kernel send the pod's connections through the sidecar, whatever the app knows of it."""
    init_image: str = ""
    """Has iptables, and writes the rules; empty: `sidecar-init` beside `image`."""
    skip_inbound_ports: tuple[int, ...] = ()
    """With intercept: the app's ports that callers reach without the sidecar."""
    skip_outbound_ports: tuple[int, ...] = ()
    """With intercept: ports of others that the app reaches without the sidecar."""
    skip_outbound_cidrs: tuple[str, ...] = ()
    """With intercept: networks that the app reaches without the sidecar, beside link-local and metadata ones."""
    app_port: int | None = None
    """Where the app listens; None is a guess. `${APP_PORT}` in the configuration."""
    app_protocol: AppProtocol | None = None
    """None is what the port's name, its Service or a probe say."""
    opaque_ports: tuple[int, ...] = ()
    """Ports that speak no HTTP, beside the well-known ones: no Service of theirs is changed."""
    inbound_port: int = 15006
    """`${INBOUND_PORT}` in the configuration, where it is not the default; so are the next three."""
    outbound_port: int = 15001
    admin_port: int = 15000
    probes_port: int = 15021
    tls_secret: str | None = None
    """A Secret of type kubernetes.io/tls, as cert-manager writes it, mounted at /etc/sidecar-tls; None: none is."""
    env: Pairs = ()
    """More variables of the sidecar's, for `${NAME}` in the configuration."""
    image_pull_policy: PullPolicy | None = None
    """None is Kubernetes' own: always for the tag `latest`, else if it is not there."""
    pull_secrets: tuple[str, ...] = ()
    """Added to the pod's `imagePullSecrets`."""
    run_as_user: int | ClusterUser = 65532
    """The image's own user, numeric so that `runAsNonRoot` can be checked."""
    cpu: str = "100m"
    """Requested."""
    cpu_limit: str | None = None
    """None is no limit: the kernel holds a container back at its limit, and with it every call."""
    memory: str = "128Mi"
    """Requested, and the limit."""

    def __post_init__(self) -> None:
        for name, (shape, what) in _SHAPES.items():
            value = getattr(self, name)
            if value is None or (name == "init_image" and not value):
                continue
            if len(value) > _MAX_VALUE or not shape.fullmatch(value):
                raise ValueError(f"{name.replace('_', '-')}: {value[:SHOWN]!r} is no {what}{_remedy(value)}")
        self._check_lists()
        for name in ("app_port", *OWN_PORTS):
            port = getattr(self, name)
            if port is not None and not 0 < port < 65536:
                raise ValueError(f"{name.replace('_', '-')} {port}: a port is from 1 to 65535")
        if self.intercept and self.http_proxy:
            raise ValueError("intercept and http-proxy do the same in two ways: choose one")
        for port in (*self.skip_inbound_ports, *self.skip_outbound_ports):
            if not 0 < port < 65536:
                raise ValueError(f"a port to skip is from 1 to 65535, not {port}")
        for cidr in self.skip_outbound_cidrs:
            _check_network(cidr)
        if len({getattr(self, name) for name in OWN_PORTS}) < len(OWN_PORTS):
            raise ValueError("inbound-port, outbound-port, admin-port and probes-port must differ")

    def _check_lists(self) -> None:
        for secret in self.pull_secrets:
            if len(secret) > _MAX_VALUE or not _DNS_NAME.fullmatch(secret):
                raise ValueError(f"pull-secrets: {secret[:SHOWN]!r} is no name of a Secret")
        for port in self.opaque_ports:
            if not 0 < port < 65536:
                raise ValueError(f"opaque-ports {port}: a port is from 1 to 65535")
        for name, value in self.env:
            if not _NAME_OF_VARIABLE.fullmatch(name):
                raise ValueError(f"env: {name[:SHOWN]!r} is no name of a variable; write NAME=VALUE")
            if not value.isprintable():
                raise ValueError(f"env: the value of {name} holds what cannot be printed")
        user = self.run_as_user
        if isinstance(user, int) and not 0 < user <= MAX_USER_ID:
            raise ValueError(
                f"run-as-user {user}: a user from 1 on, since the sidecar never runs as root, or unset"
            )


def _remedy(value: str) -> str:
    """For what people write of quantities elsewhere."""
    number = re.fullmatch(r"([0-9.]+)\s*([A-Za-z]+)", value)
    if number is None:
        return ""
    short = {
        "mb": "M",
        "gb": "G",
        "kb": "k",
        "mib": "Mi",
        "gib": "Gi",
        "kib": "Ki",
        "core": "",
        "cores": "",
        "cpu": "",
    }
    unit = short.get(number[2].lower())
    return "" if unit is None else f"; write {number[1]}{unit}"


def default_image() -> str:
    """The image of this version; a cluster's own registry goes before it, by flag or annotation."""
    try:
        return f"sidecar:{version()}"
    except PackageNotFoundError:
        return "sidecar:latest"


def init_image_of(image: str) -> str:
    """The image that writes the rules, where it is built beside the sidecar's: of the same tag. A digest says nothing
    of another image."""
    name, slash, last = image.partition("@")[0].rpartition("/")
    base, colon, tag = last.partition(":")
    return f"{name}{slash}{base}-init{colon}{tag}"


def _check_network(cidr: str) -> None:
    try:
        ip_network(cidr)
    except ValueError as error:
        raise ValueError(
            f"skip-outbound-cidrs: {cidr[:SHOWN]!r} is no network such as 10.0.0.0/8: {error}"
        ) from None


def is_wanted(annotations: Mapping[str, object], labels: Mapping[str, object]) -> bool:
    """Whether a pod takes part, by `sidecar.io/inject` as an annotation or a label; yes if nothing is said.

    Raises:
        ValueError: neither a yes nor a no.
    """
    written = annotations.get(INJECT, labels.get(INJECT, "true"))
    return flag(INJECT, text_of(written))


def is_yes_or_no(value: object) -> bool:
    """Whether a label says something of the injection at all."""
    return value is not None and is_flag(text_of(value))


def with_annotations(settings: Settings, annotations: Mapping[str, object]) -> Settings:
    """`settings` as a pod's annotations change them.

    Raises:
        ValueError: an annotation has no such value, or there is no such annotation.
    """
    kinds = {PREFIX + item.name.replace("_", "-"): (item.name, str(item.type)) for item in fields(Settings)}
    changes: dict[str, object] = {}
    for key, value in annotations.items():
        if not key.startswith(PREFIX) or key in (INJECT, STATUS):
            continue
        if key not in kinds:
            raise ValueError(f"unknown annotation {key}; there are {', '.join(sorted(kinds))} and {INJECT}")
        name, kind = kinds[key]
        changes[name] = read(key, text_of(value), kind)
    return replace(settings, **changes)  # type: ignore[arg-type]


def read_setting(field: str, text: str) -> object:
    """The value of a field of `Settings` as a flag gives it.

    Raises:
        ValueError: it has no such value.
    """
    kind = str(Settings.__dataclass_fields__[field].type)
    return read(field.replace("_", "-"), text, kind)
