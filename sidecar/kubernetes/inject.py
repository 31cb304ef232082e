"""Kubernetes YAML in, the same with the sidecar in it out; and the way back. What is not edited stays as
it is, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any

from sidecar.core.dataclass import dataclass
from sidecar.kubernetes import edits, services
from sidecar.kubernetes.choices import Mode
from sidecar.kubernetes.container import CONTAINER_NAME
from sidecar.kubernetes.edits import Edit, Removals
from sidecar.kubernetes.insert import carry_out
from sidecar.kubernetes.plan import Plan, Skipped, plan
from sidecar.kubernetes.positions import Document, ManifestError, Mapping, Node, parse
from sidecar.kubernetes.remove import BadRecord, Removal, record_of
from sidecar.kubernetes.services import DEFAULT_NAMESPACE, Backend, Backends, Spoken
from sidecar.kubernetes.settings import INJECT, PREFIX, Settings, is_yes_or_no
from sidecar.kubernetes.shapes import mapping_of
from sidecar.kubernetes.templates import template_in
from sidecar.kubernetes.workloads import Workload, manages_its_pods, name_of, objects, workloads

_BOM = "\ufeff"
_KNATIVE = "Knative allows neither init containers nor a second container with ports"
_ODD = "it is written in a way that the sidecar cannot be put in; is a key written as `? key`? Write `key:`"
_TEMPLATE = "this is still to be rendered: a Helm chart is rendered first, by `helm template`"


@dataclass(slots=True)
class Injected:
    """The new text, and a line for the operator on each object: what was done to it or why nothing was."""

    text: str
    notes: list[str] = field(default_factory=list)
    pods: int = 0
    """Pod templates, injected or not."""
    left: int = 0
    """Those of them that could not be injected, though nobody had said that they should not be."""


def inject(text: str, file: str, settings: Settings, *, rewrite_services: bool = False) -> Injected:
    """As `inject_all`, for one text."""
    return inject_all([(text, file)], settings, rewrite_services=rewrite_services)[0]


def inject_all(
    sources: Sequence[tuple[str, str]], settings: Settings, *, rewrite_services: bool = False
) -> list[Injected]:
    """Put the sidecar into every pod template of some texts with their files' names; one that has it gets it anew, as
    told now. A Service may stand in another text than its pods.

    Raises:
        ManifestError: with file, document and line; nothing is to be used then.
    """
    call = _Call(settings)
    files = [_File(text, file) for text, file in sources]
    for one in files:
        call.look_at(one)
    for one in files:
        call.pods(one)
    if rewrite_services:
        for one in files:
            call.services(one)
    return [one.result() for one in files]


def _comes_apart(text: str, bare: str, file: str) -> bool:
    """Nothing leaves here that is no YAML any more, or that could not be undone."""
    try:
        return _bare(text, file, closed=CONTAINER_NAME)[0].text == bare
    except ManifestError:
        return False


def uninject(text: str, file: str) -> Injected:
    """Take the sidecar out of every pod template of `text` that `inject` or the webhook put it in.

    Raises:
        ManifestError: with file, document and line.
    """
    return _bare(text, file)[0]


def _bare(text: str, file: str, *, closed: str | None = None) -> tuple[Injected, list[Document]]:
    """What `uninject` says, and the documents of `text` as it was: reading a text is most of the work. `closed`: see
    `parse`."""
    body, bom = _without_bom(text)
    removals, notes = Removals(body, [], []), []
    documents = parse(body, file, closed=closed)
    for document in documents:
        try:
            notes += _take_out(document, removals)
        except BadRecord as error:
            raise ManifestError(file, document.number, error.line, str(error)) from error
    return Injected(bom + removals.apply(), notes), documents


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


class _File:
    """One text on its way: what is found in it and what becomes of it."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self._given = text
        bare, documents = _bare(text, name)
        self._bare = bare.text
        self.text, self._bom = _without_bom(bare.text)
        self.documents = documents if bare.text == text else parse(self.text, name)
        self.edits: list[Edit] = []
        self.notes: list[str] = []
        self.pods = self.left = 0

    def objects(self) -> Iterator[tuple[Document, str, Mapping]]:
        for document in self.documents:
            for kind, owner in objects(document.root):
                yield document, kind, owner

    def error(self, document: Document, line: int, message: str) -> ManifestError:
        return ManifestError(self.name, document.number, line, message)

    def refuse_template(self, document: Document, owner: Node) -> None:
        """Raises: ManifestError."""
        found = template_in(owner)
        if found is not None:
            raise self.error(document, found.line, _TEMPLATE)

    def result(self) -> Injected:
        """Raises: ManifestError, for what could not be undone."""
        text = self._bom + edits.apply(self.text, self.edits)
        if text != self._given and not _comes_apart(text, self._bare, self.name):
            raise ManifestError(self.name, 1, 1, _ODD)
        return Injected(text, self.notes, self.pods, self.left)


class _Call:
    """One injection, of one file or several: what they say of each other."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._backends = Backends()
        self._spoken = Spoken()
        self._namespaces: dict[str, Any] = {}
        """What the label of a Namespace says, by its name."""

    def look_at(self, file: _File) -> None:
        """Take in what is known of other objects."""
        for _, kind, owner in file.objects():
            if services.is_service(kind, owner):
                self._spoken.add(owner.plain())
            elif kind == "Namespace":
                said = mapping_of(_metadata(owner), "labels").get(INJECT)
                if is_yes_or_no(said):
                    self._namespaces[name_of(owner)] = said

    def pods(self, file: _File) -> None:
        """Plan the edits of every pod template."""
        for document in file.documents:
            for kind, owner in objects(document.root):
                if manages_its_pods(owner):
                    file.pods, file.left = file.pods + 1, file.left + 1
                    file.notes.append(f"{kind} {name_of(owner)}: left as it is: {_KNATIVE}")
            for workload in workloads(document.root):
                file.pods += 1
                self._workload(file, document, workload)

    def services(self, file: _File) -> None:
        """Plan the edits of every Service."""
        for document, kind, owner in file.objects():
            if not services.is_service(kind, owner):
                continue
            try:
                done = services.rewrite(file.text, owner, self._backends)
            except ValueError as error:
                raise file.error(document, owner.line, f"Service {name_of(owner)}: {error}") from error
            if done.edits:
                file.refuse_template(document, owner)
            file.edits += done.edits
            file.notes += done.notes

    def _workload(self, file: _File, document: Document, workload: Workload) -> None:
        what = f"{workload.kind} {workload.name}"
        outer, inner = self._labelled(_metadata(workload.owner)), _metadata(workload.template)
        namespace, labels = outer.get("namespace"), dict(mapping_of(inner, "labels"))
        file.refuse_template(document, workload.owner)
        try:
            spec = _spec(workload.template)
            found = plan(inner, spec, outer, self._settings, self._spoken.of(namespace, labels))
        except ValueError as error:
            raise file.error(document, workload.template.line, f"{what}: {error}") from error
        if isinstance(found, Skipped):
            self._backends.add(Backend(namespace, labels, None, what))
            file.left += not found.is_asked_for
            file.notes.append(f"{what}: left as it is: {found.reason}")
            return
        if workload.shared is not None:
            raise file.error(document, workload.shared.node.line, f"{what}: {workload.shared}")
        file.edits += carry_out(file.text, workload.template, found)
        self._backends.add(Backend(namespace, labels, found, what))
        file.notes.append("; ".join([f"{what}: injected", *_told(workload, found)]))

    def _labelled(self, outer: dict[str, Any]) -> dict[str, Any]:
        """With the label that a pod has from its namespace, if it has none of its own."""
        said = self._namespaces.get(outer.get("namespace") or DEFAULT_NAMESPACE)
        labels = mapping_of(outer, "labels")
        return outer if said is None else {**outer, "labels": {INJECT: said, **labels}}


def _metadata(holder: Mapping) -> dict[str, Any]:
    node = holder.get("metadata")
    found = node.plain() if node is not None else None
    return found if isinstance(found, dict) else {}


def _spec(template: Mapping) -> dict[str, Any]:
    node = template.get("spec")
    found = node.plain() if node is not None else None
    return found if isinstance(found, dict) else {}


def _told(workload: Workload, found: Plan) -> Iterator[str]:
    if found.app.guess and not (workload.is_job and found.app.number is None):
        yield f"{found.app.guess} ({PREFIX}app-port says it)"
    yield from found.told
    if workload.is_job and found.mode is Mode.CONTAINER:
        yield "it ends only if its app calls POST /quitquitquit of the admin API at its end"
