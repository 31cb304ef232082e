"""Sends a Service's port to the sidecar's inbound listener instead of the app, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sidecar.kubernetes.editor import Editor
from sidecar.kubernetes.edits import Edit, Removals
from sidecar.kubernetes.plan import Plan
from sidecar.kubernetes.positions import Mapping, Sequence
from sidecar.kubernetes.remove import Record, Removal
from sidecar.kubernetes.settings import INJECT, STATUS
from sidecar.kubernetes.workloads import text_of


@dataclass(frozen=True, slots=True)
class Backend:
    """An injected pod template, as Services select it."""

    namespace: str | None
    labels: dict[str, Any]
    plan: Plan

    def is_selected_by(self, namespace: str | None, selector: dict[str, Any]) -> bool:
        return (
            bool(selector)
            and namespace == self.namespace
            and all(self.labels.get(key) == value for key, value in selector.items())
        )


def is_service(kind: str, owner: Mapping) -> bool:
    return kind == "Service" and text_of(owner.get("apiVersion")) == "v1"


def backend_of(service: Mapping, backends: list[Backend]) -> Backend | None:
    """The injected pods behind a Service; None where there are none, or the Service has no say in ports."""
    data = service.plain()
    metadata, spec = data.get("metadata") or {}, data.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    if str(annotations.get(INJECT, "true")).lower() == "false" or STATUS in annotations:
        return None
    if spec.get("clusterIP") == "None":  # headless: clients reach the pods' own ports
        return None
    namespace, selector = metadata.get("namespace"), spec.get("selector") or {}
    return next((item for item in backends if item.is_selected_by(namespace, selector)), None)


def rewrite(text: str, service: Mapping, plan: Plan) -> list[Edit]:
    """Edits that send every port of `service` which goes to the app to the inbound listener instead."""
    editor = Editor(text, _record)
    for index, port in enumerate(_ports(service)):
        entry, where = port.own("targetPort"), f"/spec/ports/{index}/targetPort"
        goes_to = port.get("targetPort") or port.get("port")
        if goes_to is None or goes_to.plain() not in plan.app_ports:
            continue
        if entry is not None:
            editor.replace(entry.value, where, str(plan.inbound_port))
        else:
            editor.was[where] = None
            editor.add(port, "targetPort", plan.inbound_port)
    if editor.edits:
        editor.annotate(service)
    return editor.edits


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


def _ports(service: Mapping) -> list[Mapping]:
    spec = service.own("spec")
    ports = spec.value.own("ports") if spec is not None and isinstance(spec.value, Mapping) else None
    items = ports.value.items if ports is not None and isinstance(ports.value, Sequence) else []
    return [item for item in items if isinstance(item, Mapping)]


def _record(editor: Editor) -> str:
    record = {key: value for key, value in (("created", editor.created), ("was", editor.was)) if value}
    return json.dumps(record, separators=(",", ":"))
