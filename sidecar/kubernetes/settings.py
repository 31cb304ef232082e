"""What an injected sidecar should be like: flags give the default, a pod's annotations win.

An annotation belongs to the pod template; on the workload it counts too, and the template's own wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from importlib.metadata import PackageNotFoundError, version

PREFIX = "sidecar.io/"
INJECT = PREFIX + "inject"
STATUS = PREFIX + "status"
"""Written by the injection: what it did, so that it can be undone."""
OWN_PORTS = ("inbound_port", "outbound_port", "admin_port", "probes_port")
"""Fields of `Settings`: where the sidecar listens, so that nobody else in the pod can."""
_TRUE, _FALSE = frozenset({"true", "enabled"}), frozenset({"false", "disabled"})
_QUANTITY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_SHAPES = {
    "image": (
        # registry:port/path/name:tag@digest, as container runtimes read it
        re.compile(
            r"[A-Za-z0-9]([A-Za-z0-9._-]|/(?=[a-z0-9])|:(?=[\w]))*(@[a-z0-9+._-]+:[0-9a-fA-F]{32,128})?"
        ),
        "reference of an image, such as registry.example/sidecar:1.0",
    ),
    "config_map": (
        re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"),
        "name of a ConfigMap",
    ),
    "tls_secret": (
        re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"),
        "name of a Secret",
    ),
    "no_proxy": (re.compile(r"[A-Za-z0-9.,:*/_\[\]-]*"), "list of hosts and networks, parted by commas"),
    "cpu": (_QUANTITY, "quantity, such as 100m"),
    "memory": (_QUANTITY, "quantity, such as 128Mi"),
}
"""Of texts that come from annotations: whoever may label a pod writes nothing else into its containers."""
_MAX_VALUE = 253
_SHOWN = 60


class Mode(Enum):
    """How the sidecar stands in the pod."""

    NATIVE = "native"
    """An init container with `restartPolicy: Always`: starts before the app, ends after it; Jobs end."""
    CONTAINER = "container"
    """A container beside the app, for clusters before 1.29."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One injection's choices. The name of a field with dashes is its annotation: `sidecar.io/app-port`."""

    image: str
    config_map: str = "sidecar-config"
    """Holds `sidecar.yaml`; it must be in the pod's namespace."""
    mode: Mode = Mode.NATIVE
    http_proxy: bool = False
    """Set http_proxy and no_proxy in the app's containers, so that its calls go through the sidecar."""
    no_proxy: str = "localhost,127.0.0.1,::1,169.254.169.254"
    app_port: int | None = None
    """Where the app listens; None is its first containerPort. `${APP_PORT}` in the configuration."""
    inbound_port: int = 15006
    """`${INBOUND_PORT}` in the configuration, where it is not the default; so are the next three."""
    outbound_port: int = 15001
    admin_port: int = 15000
    probes_port: int = 15021
    tls_secret: str | None = None
    """A Secret of type kubernetes.io/tls, as cert-manager writes it, mounted at /etc/sidecar-tls; None: none is."""
    endpoint_slices: bool = False
    """Mount a token of the sidecar's own, by which it may watch EndpointSlices (`kubernetes://` endpoints)."""
    cpu: str = "100m"
    """Requested."""
    memory: str = "128Mi"
    """Requested, and the limit."""

    def __post_init__(self) -> None:
        for name, (shape, what) in _SHAPES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if len(value) > _MAX_VALUE or not shape.fullmatch(value):
                raise ValueError(f"{name.replace('_', '-')}: {value[:_SHOWN]!r} is no {what}")
        for name in ("app_port", *OWN_PORTS):
            port = getattr(self, name)
            if port is not None and not 0 < port < 65536:
                raise ValueError(f"{name.replace('_', '-')} {port}: a port is from 1 to 65535")
        if len({getattr(self, name) for name in OWN_PORTS}) < len(OWN_PORTS):
            raise ValueError("inbound-port, outbound-port, admin-port and probes-port must differ")


def default_image() -> str:
    """The image of this version; a cluster's own registry goes before it, by flag or annotation."""
    try:
        return f"sidecar:{version('sidecar-proxy')}"
    except PackageNotFoundError:
        return "sidecar:latest"


def is_wanted(annotations: Mapping[str, object], labels: Mapping[str, object]) -> bool:
    """Whether a pod takes part, by `sidecar.io/inject` as an annotation or a label; yes if nothing is said.

    Raises:
        ValueError: neither a yes nor a no.
    """
    written = annotations.get(INJECT, labels.get(INJECT, "true"))
    return _flag(INJECT, _text(written))


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
        changes[name] = _value(key, _text(value), kind)
    return replace(settings, **changes)  # type: ignore[arg-type]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(key: str, text: str, kind: str) -> object:
    if kind == "bool":
        return _flag(key, text)
    if kind == "Mode":
        try:
            return Mode(text)
        except ValueError:
            raise ValueError(f"{key}: {text!r} is neither native nor container") from None
    if kind.startswith("int"):
        if not text.isascii() or not text.isdigit():
            raise ValueError(f"{key}: {text!r} is no port")
        return int(text)
    return text


def _flag(key: str, text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError(f'{key}: {text!r} is neither "true" nor "false"')
    return text.lower() in _TRUE
