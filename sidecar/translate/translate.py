"""Files of others → one file of the sidecar, and a list of what it does not say as they did."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sidecar.translate import gateway, gateway_policies, istio, istio_rule, resilience4j
from sidecar.translate.draft import Draft, Loss
from sidecar.translate.render import rendered
from sidecar.translate.source import Item, SourceError, documents

_FIRST: dict[str, Callable[[Item, Draft], None]] = {
    "HTTPRoute": gateway.translate,
    "GRPCRoute": gateway.translate,
    "VirtualService": istio.translate,
}
_THEN: dict[str, Callable[[Item, Draft], None]] = {
    "BackendTLSPolicy": gateway_policies.translate_tls,
    "XBackendTrafficPolicy": gateway_policies.translate_traffic,
    "DestinationRule": istio_rule.translate,
}
"""What is said of upstreams that the others have made."""


def translate(files: Iterable[tuple[str, str]], listener: str) -> tuple[str, list[Loss]]:
    """The result and the losses, for (name, text) of each file.

    Raises:
        SourceError: a file cannot be read, nothing in it is known, or the result is too large.
    """
    draft = Draft(listener)
    read = [(name, documents(text, name)) for name, text in files]
    for name, found in read:
        if not any(_kind(one) in _FIRST | _THEN or resilience4j.is_one(one) for one in found):
            known = ", ".join([*_FIRST, *_THEN])
            raise SourceError(
                f"{name}: nothing to import: known are {known}, and resilience4j's application.yml"
            )
    every = [one for _, found in read for one in found]
    for document in every:
        kind = _kind(document)
        if kind in _FIRST:
            _FIRST[kind](document, draft)
        elif not kind and resilience4j.is_one(document):
            resilience4j.translate(document, draft)
        elif kind not in _THEN:
            draft.lose(document, f"{kind or 'a document without a kind'} is not imported", reach=False)
    for document in every:
        then = _THEN.get(_kind(document))
        if then is not None:
            draft.leave()
            then(document, draft)
    draft.leave()
    text = rendered(draft)
    order = {name: number for number, (name, _) in enumerate(read)}
    return text, sorted(dict.fromkeys(draft.losses), key=lambda loss: (order.get(loss.file, 0), loss.line))


def _kind(document: Item) -> str:
    item = document.get("kind") if document.is_mapping else None
    return item.text() if item is not None and not (item.is_mapping or item.is_list) else ""
