"""NetworkPolicies for the pods of a file: in through the sidecar alone, and out to no cloud's metadata.

A sidecar that can be gone past protects nothing: with a Service in front the app's own port is none the less open to
every pod that knows its address. A policy selects pods by labels and ports by number; it cannot tell the app from the
sidecar, which share one network. So it closes the app's ports to others, and can limit where both may call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sidecar.core.dataclass import dataclass
from sidecar.kubernetes.app_port import ports_of
from sidecar.kubernetes.edits import block
from sidecar.kubernetes.inject import Injected, uninject
from sidecar.kubernetes.plan import Skipped, chosen_settings, plan
from sidecar.kubernetes.positions import Document, ManifestError, parse
from sidecar.kubernetes.settings import Settings
from sidecar.kubernetes.shapes import mapping_of
from sidecar.kubernetes.workloads import Workload, workloads

SUFFIX: Final = "-sidecar"
DNS_PORT: Final = 53
METADATA: Final = {
    "0.0.0.0/0": ["169.254.0.0/16"],
    "::/0": ["fe80::/10", "fd00:ec2::254/128"],
}
"""Everywhere, but for the addresses at which clouds tell a node's credentials to whoever asks."""


@dataclass(frozen=True, slots=True)
class _Target:
    """What of a workload a policy needs."""

    name: str
    namespace: str | None
    labels: dict[str, Any]
    open_ports: tuple[int, int]
    closed_ports: tuple[int, ...]


def network_policies(text: str, file: str, settings: Settings, *, with_egress: bool = False) -> Injected:
    """A NetworkPolicy for each pod template of `text` that has the sidecar or would get it, and a note for each.

    Raises:
        ManifestError: with file, document and line.
    """
    bare = uninject(text, file).text.removeprefix("\ufeff")
    documents: list[str] = []
    notes: list[str] = []
    for document in parse(bare, file):
        for workload in workloads(document.root):
            what = f"{workload.kind} {workload.name}"
            found = _target(document, workload, file, settings)
            if isinstance(found, Skipped):
                notes.append(f"{what}: no policy: {found.reason}")
                continue
            documents.append("\n".join(block(_policy(found, with_egress), 0)) + "\n")
            notes.append(f"{what}: {_told(found)}")
    return Injected("---\n".join(documents), notes, pods=len(notes))


def _target(document: Document, workload: Workload, file: str, settings: Settings) -> _Target | Skipped:
    outer, template = workload.owner.plain(), workload.template.plain()
    metadata, spec = mapping_of(template, "metadata"), mapping_of(template, "spec")
    own = mapping_of(outer, "metadata")
    try:
        planned = plan(metadata, spec, own, settings)
        if isinstance(planned, Skipped):
            return planned
        chosen = chosen_settings(metadata, own, settings)
    except ValueError as error:
        where = f"{workload.kind} {workload.name}: {error}"
        raise ManifestError(file, document.number, workload.template.line, where) from error
    labels = _labels(outer, metadata)
    if not labels:
        return Skipped("its pods have no labels, by which it could select them; give them one")
    opened = (chosen.inbound_port, chosen.probes_port)
    containers = [item for item in spec.get("containers") or [] if isinstance(item, Mapping)]
    closed = tuple(dict.fromkeys(port for port in ports_of(containers) if port not in opened))
    namespace = own.get("namespace")
    return _Target(
        workload.name.rstrip("-."), namespace if isinstance(namespace, str) else None, labels, opened, closed
    )


def _labels(outer: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What selects the pods: the workload's own selector where it has one, since others of the same labels are not
    meant."""
    selector = mapping_of(mapping_of(outer, "spec"), "selector")
    return dict(mapping_of(selector, "matchLabels") or mapping_of(metadata, "labels"))


def _policy(target: _Target, with_egress: bool) -> dict[str, Any]:
    metadata = {"name": target.name + SUFFIX} | ({"namespace": target.namespace} if target.namespace else {})
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": target.labels},
        "policyTypes": ["Ingress", "Egress"] if with_egress else ["Ingress"],
        "ingress": [{"ports": [_port(number) for number in target.open_ports]}],
    }
    if with_egress:
        spec["egress"] = list(_egress())
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _egress() -> Iterator[dict[str, Any]]:
    """Names may be asked for anywhere: a node's own cache of them stands among the metadata's addresses."""
    yield {"ports": [_port(DNS_PORT, "UDP"), _port(DNS_PORT)]}
    blocks = [{"ipBlock": {"cidr": cidr, "except": without}} for cidr, without in METADATA.items()]
    yield {"to": [{"namespaceSelector": {}}, *blocks]}


def _port(number: int, protocol: str = "TCP") -> dict[str, Any]:
    return {"port": number, "protocol": protocol}


def _told(target: _Target) -> str:
    first, second = target.open_ports
    text = f"its pods can be reached at {first} and {second} alone"
    return f"{text}, no more at {', '.join(map(str, target.closed_ports))}" if target.closed_ports else text
