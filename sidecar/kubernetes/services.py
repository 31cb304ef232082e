"""Sends a Service's port to the sidecar's inbound listener instead of the app, and back.

A port is changed where it goes to the app's port of an injected pod, and may be HTTP. Where that is not so, the
Service stays as it is, and the operator is told why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import field
from typing import Any

from sidecar.core.dataclass import dataclass
from sidecar.kubernetes.choices import AppProtocol
from sidecar.kubernetes.editor import Editor
from sidecar.kubernetes.edits import Edit, Removals
from sidecar.kubernetes.plan import Plan
from sidecar.kubernetes.positions import Mapping, Sequence
from sidecar.kubernetes.protocols import Speaks, judged
from sidecar.kubernetes.remove import Record, Removal
from sidecar.kubernetes.settings import PREFIX, STATUS, is_wanted
from sidecar.kubernetes.shapes import items_of, mapping_of
from sidecar.kubernetes.workloads import name_of, text_of

DEFAULT_NAMESPACE = "default"
_Label = tuple[str, str]
_Key = tuple[str, str, str]
_Said = tuple[tuple[_Label, ...], tuple[tuple[int | str, AppProtocol], ...]]
"""A selector, and what its Service says of the pods' ports."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A pod template, as Services select it; `plan` is None where it gets no sidecar."""

    namespace: str | None
    labels: dict[str, Any]
    plan: Plan | None
    name: str


class Backends:
    """All pod templates of a call. Found by one label of the selector, or a thousand of them would be looked at for
    each Service."""

    def __init__(self) -> None:
        self._by_label: dict[_Key, list[Backend]] = {}

    def add(self, backend: Backend) -> None:
        namespace = backend.namespace or DEFAULT_NAMESPACE
        for label in backend.labels.items():
            self._by_label.setdefault((namespace, *_hashable(label)), []).append(backend)

    def selected_by(self, namespace: str | None, selector: dict[str, Any]) -> list[Backend]:
        if not selector:
            return []
        places = [self.near(namespace or DEFAULT_NAMESPACE, label) for label in selector.items()]
        near = min(places, key=len)  # a label such as part-of may be that of every pod
        return [
            item for item in near if all(item.labels.get(key) == value for key, value in selector.items())
        ]

    def near(self, namespace: str, label: tuple[Any, Any]) -> list[Backend]:
        """Those with one label."""
        return self._by_label.get((namespace, *_hashable(label)), [])


@dataclass(slots=True)
class Rewritten:
    """What is done to one Service."""

    edits: list[Edit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def is_service(kind: str, owner: Mapping) -> bool:
    return kind == "Service" and text_of(owner.get("apiVersion")) == "v1"


class Spoken:
    """What the Services of a call say of the ports that they send to."""

    def __init__(self) -> None:
        self._by_label: dict[_Key, dict[_Said, None]] = {}

    def add(self, service: dict[str, Any]) -> None:
        selector = mapping_of(mapping_of(service, "spec"), "selector")
        namespace = mapping_of(service, "metadata").get("namespace") or DEFAULT_NAMESPACE
        labels = tuple(map(_hashable, selector.items()))
        said = tuple(_spoken(service))
        if labels and said:
            self._by_label.setdefault((namespace, *labels[0]), {})[(labels, said)] = None

    def of(self, namespace: str | None, labels: dict[str, Any]) -> dict[int | str, AppProtocol]:
        """By the pods' ports, of pods with these labels."""
        written = [_hashable(label) for label in labels.items()]
        own = set(written)
        found: dict[int | str, AppProtocol] = {}
        for label in written:
            for selector, said in self._by_label.get((namespace or DEFAULT_NAMESPACE, *label), ()):
                if own.issuperset(selector):
                    found.update(said)
        return found


def _spoken(service: dict[str, Any]) -> Iterator[tuple[int | str, AppProtocol]]:
    for port in items_of(mapping_of(service, "spec"), "ports"):
        speaks = judged(port.get("name"), port.get("appProtocol"), (), ()).speaks
        protocol = {Speaks.HTTP1: AppProtocol.HTTP1, Speaks.HTTP2: AppProtocol.HTTP2}.get(speaks)
        goes_to = port.get("targetPort") or port.get("port")
        if protocol is not None and isinstance(goes_to, int | str):
            yield goes_to, protocol


def rewrite(text: str, service: Mapping, backends: Backends) -> Rewritten:
    """Edits that send every port of `service` which goes to the app to the inbound listener instead.

    Raises:
        ValueError: its annotation says neither yes nor no.
    """
    data = service.plain()
    metadata, spec = mapping_of(data, "metadata"), mapping_of(data, "spec")
    found = backends.selected_by(metadata.get("namespace"), dict(mapping_of(spec, "selector")))
    plans = [backend.plan for backend in found if backend.plan is not None]
    if not plans or STATUS in mapping_of(metadata, "annotations"):
        return Rewritten()
    done = Rewritten()
    what = f"Service {name_of(service)}"
    reason = _whole(metadata, spec, found, plans)
    if reason:
        done.notes.append(f"{what}: left as it is: {reason}")
        return done
    _each_port(text, service, plans[0], done)
    done.notes = [f"{what}: {note}" for note in done.notes]
    return done


def _whole(metadata: Any, spec: Any, found: list[Backend], plans: list[Plan]) -> str:
    """Why no port may be changed; empty where nothing is against it."""
    if not is_wanted(mapping_of(metadata, "annotations"), mapping_of(metadata, "labels")):
        return f'{PREFIX}inject is "false"'
    if spec.get("clusterIP") == "None":
        return "it is headless: its clients reach the pods' own ports"
    bare = next((backend for backend in found if backend.plan is None), None)
    if bare is not None:
        return f"it selects {bare.name} too, which has no sidecar"
    if len({(plan.inbound_port, plan.app.number) for plan in plans}) > 1:
        return "the pods that it selects differ in their ports"
    return ""


def _each_port(text: str, service: Mapping, plan: Plan, done: Rewritten) -> None:
    editor = Editor(text, _record)
    for index, port in enumerate(_ports(service)):
        data = port.plain()
        goes_to = data.get("targetPort") or data.get("port")
        told = f"port {data.get('port')}" + (f" ({data['name']})" if data.get("name") else "")
        against = _against(data, goes_to, plan)
        if against:
            done.notes.append(f"{told} still goes to {goes_to}: {against}")
            continue
        _send(editor, port, index, plan.inbound_port)
        done.notes.append(f"{told} goes to the sidecar's {plan.inbound_port} now, not to {goes_to}")
    if editor.edits:
        editor.annotate(service)
    done.edits = editor.edits


def _send(editor: Editor, port: Mapping, index: int, number: int) -> None:
    entry, where = port.own("targetPort"), f"/spec/ports/{index}/targetPort"
    if entry is not None:
        editor.replace(entry.value, where, str(number))
    else:
        editor.was[where] = None
        editor.add(port, "targetPort", number)


def _against(port: dict[str, Any], goes_to: Any, plan: Plan) -> str:
    if port.get("protocol", "TCP") != "TCP":
        return f"it is {port['protocol']}"
    numbers = [number for number in (port.get("port"), goes_to) if isinstance(number, int)]
    known = judged(port.get("name"), port.get("appProtocol"), numbers, plan.opaque_ports)
    if not known.may_be_http:
        return known.why
    if goes_to != plan.app.number and goes_to not in plan.app.names:
        return f"the app's port is {plan.app.number}" if plan.app.number else "no port of the app's is known"
    is_said = known.speaks is not Speaks.UNKNOWN
    return "" if is_said or plan.app.judged.may_be_http else plan.app.judged.why


def restore(removals: Removals, service: Mapping, record: Record) -> None:
    """The way back."""
    Removal(removals, service, record).metadata()
    for index, port in enumerate(_ports(service)):
        where, entry = f"/spec/ports/{index}/targetPort", port.own("targetPort")
        if where not in record.was or entry is None:
            continue
        before = record.was[where]
        if before is None:
            removals.entry(port, entry)
        else:
            removals.replace(entry.value, before)


def _ports(service: Mapping) -> Iterator[Mapping]:
    spec = service.own("spec")
    ports = spec.value.own("ports") if spec is not None and isinstance(spec.value, Mapping) else None
    items = ports.value.items if ports is not None and isinstance(ports.value, Sequence) else []
    return (item for item in items if isinstance(item, Mapping))


def _record(editor: Editor) -> str:
    record = {key: value for key, value in (("created", editor.created), ("was", editor.was)) if value}
    return json.dumps(record, separators=(",", ":"))


def _hashable(label: tuple[Any, Any]) -> _Label:
    return str(label[0]), str(label[1])
