"""Which port of a pod is the app's, where nobody says so: a guess, which is told."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from sidecar.core.dataclass import dataclass
from sidecar.kubernetes.protocols import Judged, Speaks, judged
from sidecar.kubernetes.shapes import items_of

_GUARDS: Final = (
    *("kube-rbac-proxy", "oauth2-proxy", "ghostunnel", "istio-proxy", "linkerd-proxy"),
    *("cloud-sql-proxy", "cloudsql-proxy", "vault-agent"),
)
"""Containers beside the app, by name or image: their ports are no app's."""
_ASIDE: Final = frozenset(
    {
        "metrics",
        "prometheus",
        "prom",
        "exporter",
        "admin",
        "debug",
        "health",
        "healthz",
        "probe",
        "probes",
        "management",
    }
)
"""Words in names of ports for those who watch an app."""


@dataclass(frozen=True, slots=True)
class AppPort:
    """Where the app listens, as far as that is known."""

    number: int | None
    names: frozenset[str]
    """Of the same port, as a Service may call it."""
    judged: Judged
    guess: str = ""
    """In words; empty where it was said."""


@dataclass(frozen=True, slots=True)
class _Port:
    name: str | None
    number: int
    judged: Judged


def app_port(containers: Sequence[Mapping[str, Any]], said: int | None, opaque: Collection[int]) -> AppPort:
    """`said` is what a flag or an annotation gives; None is for the best guess."""
    ports = [port for item in containers for port in _ports(item, opaque)]
    if said is not None:
        return _as(said, ports, "")
    apps = [port for item in containers if not _is_guard(item) for port in _ports(item, opaque)]
    likely = [port for port in apps if port.judged.may_be_http and not _is_aside(port.name)]
    if not likely:
        return AppPort(None, frozenset(), Judged(Speaks.UNKNOWN), _no_guess(ports))
    named = [port for port in likely if port.judged.speaks is not Speaks.UNKNOWN]
    best = (named or likely)[0]
    others = [str(number) for number in dict.fromkeys(port.number for port in ports) if number != best.number]
    told = f"its app is taken to listen at {best.number}"
    return _as(best.number, ports, f"{told}, not at {', '.join(others)}" if others else told)


def ports_of(containers: Sequence[Mapping[str, Any]]) -> list[int]:
    """The TCP ports that containers tell of, in their order."""
    return [port.number for item in containers for port in _ports(item, ())]


def _as(number: int, ports: list[_Port], guess: str) -> AppPort:
    same = [port for port in ports if port.number == number]
    names = frozenset(port.name for port in same if port.name is not None)
    return AppPort(number, names, same[0].judged if same else Judged(Speaks.UNKNOWN), guess)


def _ports(container: Mapping[str, Any], opaque: Collection[int]) -> Iterator[_Port]:
    for port in items_of(container, "ports"):
        name, number = port.get("name"), port.get("containerPort")
        if isinstance(number, int) and port.get("protocol", "TCP") == "TCP":
            known = judged(name, None, (number,), opaque)
            if known.speaks is Speaks.UNKNOWN and number in _grpc_probes(container):
                known = Judged(Speaks.HTTP2, "it has a probe by gRPC")
            yield _Port(name if isinstance(name, str) else None, number, known)


def _grpc_probes(container: Mapping[str, Any]) -> Iterator[Any]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(kind)
        grpc = probe.get("grpc") if isinstance(probe, Mapping) else None
        if isinstance(grpc, Mapping):
            yield grpc.get("port")


def _is_guard(container: Mapping[str, Any]) -> bool:
    image = str(container.get("image", "")).rpartition("/")[2].partition(":")[0].partition("@")[0]
    return str(container.get("name")) in _GUARDS or image in _GUARDS


def _is_aside(name: str | None) -> bool:
    return name is not None and not _ASIDE.isdisjoint(name.split("-"))


def _no_guess(ports: list[_Port]) -> str:
    if not ports:
        return "no port of its app is known: no container tells of one"
    known = dict.fromkeys(str(port.number) for port in ports)
    which = f"none of {', '.join(known)} is" if len(known) > 1 else f"{next(iter(known))} is not"
    return f"no port of its app is known: {which} for HTTP from callers"
