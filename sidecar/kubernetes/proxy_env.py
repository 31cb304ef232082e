"""The proxy's variables for one container. What the app has of its own is respected: a proxy of its own stays the
only one, and its own exceptions from the proxy are kept beside ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

from sidecar.core.dataclass import dataclass
from sidecar.kubernetes.settings import Settings
from sidecar.kubernetes.shapes import items_of

_PROXY: Final = ("http_proxy", "HTTP_PROXY")
# curl and wget read the lower-case name alone, some runtimes the upper-case one
_EXCEPTIONS: Final = ("no_proxy", "NO_PROXY")
_GRPC_EXCEPTIONS: Final = "no_grpc_proxy"
"""Read by gRPC's C core (Python, Ruby, C++, PHP) instead of `no_proxy` where it is set."""


@dataclass(slots=True)
class ProxyEnv:
    """What becomes of one container's variables."""

    new: list[dict[str, str]] = field(default_factory=list)
    changed: dict[str, str] = field(default_factory=dict)
    """Values of variables that it has, by name."""
    told: list[str] = field(default_factory=list)
    """For the operator, without the container's name."""

    def applied(self, items: list[Any]) -> list[Any]:
        """`items` of its list `env`, with the new ones in front."""
        return [*self.new, *(self._item(item) for item in items)]

    def _item(self, item: Any) -> Any:
        name = item.get("name") if isinstance(item, Mapping) else None
        return {**item, "value": self.changed[name]} if name in self.changed else item


def proxy_env(container: Mapping[str, Any], settings: Settings) -> ProxyEnv:
    """Decide for a container with its `env` as plain data."""
    found = ProxyEnv()
    # Of two, the last one counts.
    known = {str(item.get("name")): item for item in items_of(container, "env")}
    proxy = f"http://127.0.0.1:{settings.outbound_port}"
    own = [name for name in _PROXY if name in known]
    if own:
        if any(known[name].get("value") != proxy for name in own):
            found.told.append(f"has {own[0]} of its own, so its calls go past the sidecar")
        return found
    if container.get("envFrom"):
        found.told.append("takes variables by envFrom; an http_proxy or no_proxy there is overruled")
    found.new += [{"name": name, "value": proxy} for name in _PROXY]
    _exceptions(found, known, settings)
    return found


def _exceptions(found: ProxyEnv, known: Mapping[Any, Mapping[str, Any]], settings: Settings) -> None:
    listed = settings.no_proxy
    for name in (*_EXCEPTIONS, _GRPC_EXCEPTIONS):
        if name not in known:
            continue
        value = known[name].get("value")
        if "valueFrom" in known[name] or not isinstance(value, str | None):
            found.told.append(f"has {name} from elsewhere, so {settings.no_proxy} is not added to it")
            continue
        merged = _merged(value or "", settings.no_proxy)
        if merged != value:
            found.changed[name] = merged
            found.told.append(f"has {name} of its own, now with {settings.no_proxy} in it")
        if name in _EXCEPTIONS and "$(" not in merged:  # a reference reaches only what stands above it
            listed = merged
    found.new += [{"name": name, "value": listed} for name in _EXCEPTIONS if name not in known]
    if settings.no_grpc_proxy is not None and _GRPC_EXCEPTIONS not in known:
        merged = _merged(settings.no_grpc_proxy, settings.no_proxy)
        found.new.append({"name": _GRPC_EXCEPTIONS, "value": merged})


def _merged(own: str, more: str) -> str:
    """Both lists, each item once; `*` is everything already."""
    items = [item.strip() for item in own.split(",")]
    if "*" in items:
        return own
    added = [item for item in more.split(",") if item and item not in items]
    return ",".join([own.rstrip(", "), *added]) if own.strip(", ") else ",".join(added)
