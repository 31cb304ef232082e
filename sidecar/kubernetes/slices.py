"""EndpointSlices of one Service (discovery.k8s.io/v1) → its endpoints. Pure: knows no socket and no clock.

All slices are joined, and the port is looked for in each by its name or number. Usable is what is ready (unset is
true) and does not end; without any of those, what ends and still serves. What comes from the API server is checked
member by member: what is not as it must be is refused as a whole (`Malformed`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sidecar.core.dataclass import dataclass
from sidecar.core.listing import MOST_ENDPOINTS
from sidecar.core.snapshot import Endpoint

MOST_SLICES: Final = 2 * MOST_ENDPOINTS
"""Of one Service: more are a mistake. Slices are rarely full, and a rollout leaves many with one endpoint each."""


NONE, ENDING, READY = 0, 1, 2
"""What a pod is good for: nothing, to be used without a ready one, to be used."""


class Malformed(Exception):
    """The API server said what it cannot mean; the text says where."""


@dataclass(frozen=True, slots=True)
class Service:
    """What an entry `kubernetes://NAME.NAMESPACE:PORT` names."""

    name: str
    namespace: str
    port: str
    """Name or number."""

    @classmethod
    def of(cls, entry: Endpoint) -> Service:
        service, _, port = entry.host.rpartition(":")
        name, _, namespace = service.partition(".")
        return cls(name, namespace, port)

    @property
    def domain(self) -> str:
        """Its name within the cluster."""
        return f"{self.name}.{self.namespace}.svc"


@dataclass(frozen=True, slots=True)
class Pod:
    """One endpoint of one slice."""

    address: str
    uid: str
    use: int
    """`READY`, `ENDING` or `NONE`."""
    zones: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """What one EndpointSlice says."""

    name: str
    family: int
    """4 or 6; 0 for names, which are not used."""
    ports: tuple[tuple[str, int], ...]
    """Names (empty for the one without) and numbers of those for TCP."""
    pods: tuple[Pod, ...]

    def port(self, wanted: str) -> int | None:
        """The number of the port of this name, or with this number."""
        for name, number in self.ports:
            if wanted in (name, str(number)):
                return number
        return None


class SliceBook:
    """The slices of one Service as the API server has told them."""

    def __init__(self, service: Service, family: int) -> None:
        """`family`: 4 or 6, whose addresses are used as long as there are any."""
        self._service = service
        self._family = family
        self._slices: dict[str, Slice] = {}

    def __len__(self) -> int:
        return len(self._slices)

    def replace(self, slices: Iterable[Slice]) -> None:
        """A complete list has come."""
        self._slices = {one.name: one for one in slices}

    def put(self, one: Slice) -> None:
        """One was added or changed. Raises: Malformed, for more slices than there may be."""
        if one.name not in self._slices and len(self._slices) >= MOST_SLICES:
            raise Malformed(f"the Service has more than {MOST_SLICES} slices")
        self._slices[one.name] = one

    def remove(self, name: str) -> None:
        self._slices.pop(name, None)

    def has_usable(self) -> bool:
        """Whether `endpoints` is not empty: found at the first one."""
        return any(
            pod.use > NONE
            for one in self._slices.values()
            if one.family and one.port(self._service.port) is not None
            for pod in one.pods
        )

    def missing_port(self) -> str | None:
        """What to tell where the Service has slices and none of them the port; None otherwise."""
        wanted = self._service.port
        if not self._slices or any(one.port(wanted) is not None for one in self._slices.values()):
            return None
        known = sorted({name or str(number) for one in self._slices.values() for name, number in one.ports})
        there = f"it has {', '.join(known[:8])}" if known else "it has none"
        return f"Service {self._service.name} in {self._service.namespace} has no port {wanted}: {there}"

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The usable ones, in the order of their addresses."""
        for family in (self._family, 10 - self._family):
            found = self._of_family(family)
            if found:
                return found
        return ()

    def _of_family(self, family: int) -> tuple[Endpoint, ...]:
        pods: dict[tuple[str, int, str], Pod] = {}
        for one in self._slices.values():
            port = one.port(self._service.port) if one.family == family else None
            for pod in one.pods if port is not None else ():
                key = pod.address, port or 0, pod.uid
                # A pod may stand in two slices while it moves from one to the other.
                if key not in pods or pod.use > pods[key].use:
                    pods[key] = pod
        best = max((pod.use for pod in pods.values()), default=NONE)
        chosen = {key: pod for key, pod in pods.items() if pod.use == best} if best > NONE else {}
        has_zones = all(pod.zones for pod in chosen.values())
        name = self._service.domain
        found = [
            Endpoint(address, port, name=name, uid=uid, zones=pod.zones if has_zones else ())
            for (address, port, uid), pod in chosen.items()
        ]
        return tuple(sorted(found, key=lambda one: (int(ipaddress.ip_address(one.host)), one.port, one.uid)))


# From JSON


def read_slice(data: Any) -> Slice:
    """One object of the API. Raises: Malformed."""
    metadata = _mapping(data, "metadata")
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        raise Malformed("an EndpointSlice without metadata.name")
    family = {"IPv4": 4, "IPv6": 6}.get(str(data.get("addressType")), 0)
    try:
        ports = tuple(_ports(data))
        pods = tuple(_pod(one, family) for one in _list(data, "endpoints")) if family else ()
    except Malformed as error:
        raise Malformed(f"EndpointSlice {name[:64]!r}: {error}") from None
    return Slice(name, family, ports, pods)


def _ports(data: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    for one in _list(data, "ports"):
        number, name = one.get("port"), one.get("name") or ""
        if one.get("protocol") not in (None, "TCP") or number is None:
            continue  # no number: every port, which no Service asks for
        if not isinstance(number, int) or not 0 < number < 65536 or not isinstance(name, str):
            raise Malformed("ports: not a name and a number from 1 to 65535")
        yield name, number


def _pod(data: Mapping[str, Any], family: int) -> Pod:
    addresses = data.get("addresses")
    # "All are fungible, and clients use the first only" (EndpointSlice API).
    address = addresses[0] if isinstance(addresses, list) and addresses else None
    try:
        parsed = ipaddress.ip_address(address if isinstance(address, str) else "")
    except ValueError:
        raise Malformed("endpoints: addresses has no IP address") from None
    if parsed.version != family:
        raise Malformed("endpoints: an address of the other family")
    conditions = _mapping(data, "conditions")
    is_ready = conditions.get("ready") is not False
    serving = conditions.get("serving")
    is_serving = is_ready if serving is None else serving is True
    is_ending = conditions.get("terminating") is True
    use = (ENDING if is_serving else NONE) if is_ending else (READY if is_ready else NONE)
    uid = _mapping(data, "targetRef").get("uid")
    return Pod(str(parsed), uid if isinstance(uid, str) else "", use, tuple(_zones(data)))


def _zones(data: Mapping[str, Any]) -> Iterable[str]:
    for one in _list(_mapping(data, "hints"), "forZones"):
        name = one.get("name")
        if isinstance(name, str) and name:
            yield name


def _mapping(data: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise Malformed("not an object")
    value = data.get(key)
    if value is not None and not isinstance(value, dict):
        raise Malformed(f"{key} is not an object")
    return value or {}


def _list(data: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Malformed(f"{key} is not a list of objects")
    return value
