"""Kubernetes YAML in, the same with the sidecar in it out; and the way back. What is not edited stays as
it is, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sidecar.kubernetes import edits, services
from sidecar.kubernetes.edits import Edit, Removals
from sidecar.kubernetes.insert import carry_out
from sidecar.kubernetes.plan import Plan, Skipped, plan
from sidecar.kubernetes.positions import Document, ManifestError, Mapping, parse
from sidecar.kubernetes.remove import BadRecord, Removal, record_of
from sidecar.kubernetes.services import Backend
from sidecar.kubernetes.settings import Mode, Settings
from sidecar.kubernetes.workloads import Workload, manages_its_pods, name_of, objects, workloads

_BOM = "\ufeff"
_KNATIVE = "Knative allows neither init containers nor a second container with ports"
_ODD = "it is written in a way that the sidecar cannot be put in; is a key written as `? key`? Write `key:`"


@dataclass(slots=True)
class Injected:
    """The new text, and a line for the operator on each object: what was done to it or why nothing was."""

    text: str
    notes: list[str] = field(default_factory=list)


def inject(text: str, file: str, settings: Settings, *, rewrite_services: bool = False) -> Injected:
    """Put the sidecar into every pod template of `text`; one that has it gets it anew, as told now.

    Raises:
        ManifestError: with file, document and line; nothing is to be used then.
    """
    taken_out = uninject(text, file)
    injected = _Injector(taken_out.text, file, settings, rewrite_services).run()
    if injected.text != text and not _comes_apart(injected.text, taken_out.text, file):
        raise ManifestError(file, 1, 1, _ODD)
    return injected


def _comes_apart(text: str, bare: str, file: str) -> bool:
    """Nothing leaves here that is no YAML any more, or that could not be undone."""
    try:
        return uninject(text, file).text == bare
    except ManifestError:
        return False


def uninject(text: str, file: str) -> Injected:
    """Take the sidecar out of every pod template of `text` that `inject` or the webhook put it in.

    Raises:
        ManifestError: with file, document and line.
    """
    body, bom = _without_bom(text)
    removals, notes = Removals(body, [], []), []
    for document in parse(body, file):
        try:
            notes += _take_out(document, removals)
        except BadRecord as error:
            raise ManifestError(file, document.number, error.line, str(error)) from error
    return Injected(bom + removals.apply(), notes)


def _take_out(document: Document, removals: Removals) -> list[str]:
    notes = []
    for workload in workloads(document.root):
        record = record_of(workload.template)
        if record is not None:
            Removal(removals, workload.template, record).pod()
            notes.append(f"{workload.kind} {workload.name}: taken out")
    for kind, owner in objects(document.root):
        record = record_of(owner) if services.is_service(kind, owner) else None
        if record is not None:
            services.restore(removals, owner, record)
    return notes


def _without_bom(text: str) -> tuple[str, str]:
    return (text[1:], _BOM) if text.startswith(_BOM) else (text, "")


class _Injector:
    def __init__(self, text: str, file: str, settings: Settings, rewrite_services: bool) -> None:
        self._text, self._bom = _without_bom(text)
        self._file, self._settings, self._rewrites = file, settings, rewrite_services
        self._edits: list[Edit] = []
        self._notes: list[str] = []
        self._backends: list[Backend] = []

    def run(self) -> Injected:
        documents = parse(self._text, self._file)
        for document in documents:
            for kind, owner in objects(document.root):
                if manages_its_pods(owner):
                    self._notes.append(f"{kind} {name_of(owner)}: left as it is: {_KNATIVE}")
            for workload in workloads(document.root):
                self._workload(document, workload)
        if self._rewrites:
            for document in documents:
                self._each_service(document, self._service)
        return Injected(self._bom + edits.apply(self._text, self._edits), self._notes)

    def _workload(self, document: Document, workload: Workload) -> None:
        what = f"{workload.kind} {workload.name}"
        outer, inner = _metadata(workload.owner), _metadata(workload.template)
        try:
            spec = workload.template.plain().get("spec") or {}
            found = plan(inner, spec, outer, self._settings)
        except ValueError as error:
            raise self._error(document, workload.template.line, f"{what}: {error}") from error
        if isinstance(found, Skipped):
            self._notes.append(f"{what}: left as it is: {found.reason}")
            return
        if workload.shared is not None:
            line = workload.shared.node.line
            raise self._error(document, line, f"{what}: {workload.shared}")
        self._edits += carry_out(self._text, workload.template, found)
        self._backends.append(Backend(outer.get("namespace"), inner.get("labels") or {}, found))
        self._notes.append(f"{what}: injected{_warning(workload, found)}")
        if found.has_token:
            self._notes.append(f"{what}: {_binding(spec, outer)}")

    def _each_service(self, document: Document, do: Callable[[Mapping], None]) -> None:
        for kind, owner in objects(document.root):
            if services.is_service(kind, owner):
                do(owner)

    def _service(self, service: Mapping) -> None:
        backend = services.backend_of(service, self._backends)
        if backend is not None:
            self._edits += services.rewrite(self._text, service, backend.plan)

    def _error(self, document: Document, line: int, message: str) -> ManifestError:
        return ManifestError(self._file, document.number, line, message)


def _metadata(holder: Mapping) -> dict[str, Any]:
    found = holder.plain().get("metadata")
    return found if isinstance(found, dict) else {}


def _binding(spec: dict[str, Any], outer: dict[str, Any]) -> str:
    """How the pod's service account comes to what it needs to watch EndpointSlices."""
    account = spec.get("serviceAccountName") or "default"
    namespace = outer.get("namespace") or "ITS-NAMESPACE"
    return (
        "in each namespace whose Services it is to watch (the ClusterRole is in deploy/endpoint-slices): kubectl -n"
        f" NAMESPACE create rolebinding {account}-endpoint-slices --clusterrole=sidecar-endpoint-slices"
        f" --serviceaccount={namespace}:{account}"
    )


def _warning(workload: Workload, found: Plan) -> str:
    if workload.is_job and found.mode is Mode.CONTAINER:
        return "; it ends only if its app calls POST /quitquitquit of the admin API at its end"
    return ""
