"""In which order the forms of a trace's context are believed, and which of them the next hop is told (SPEC 6).

The first one with a valid trace id wins. All that came are written anew, so that they agree. W3C's `traceparent` is
always read and always written, because deadlines travel by it: where it is not named, it is believed last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sidecar.core import tracecontext
from sidecar.core.propagation.b3 import B3
from sidecar.core.propagation.datadog import Datadog
from sidecar.core.propagation.form import CameContext, ContextForm, NextIds
from sidecar.core.propagation.jaeger import Jaeger
from sidecar.core.propagation.xray import XRay
from sidecar.core.snapshot import Propagator
from sidecar.core.tracecontext import RANDOM, SAMPLED, IdSource, TraceContext

_FORMS: Final[Mapping[Propagator, ContextForm]] = {
    Propagator.B3: B3(is_single=True),
    Propagator.B3_MULTI: B3(is_single=False),
    Propagator.JAEGER: Jaeger(),
    Propagator.XRAY: XRay(),
    Propagator.DATADOG: Datadog(),
}
_NOTHING: Final = CameContext(b"", b"", None)


class JoinedContext(NamedTuple):
    """What a request's trace is to be."""

    context: TraceContext
    """A new one, where no valid trace id came."""
    is_sampled: bool | None
    """As the caller decided; None: it did not."""
    forms: tuple[ContextForm, ...]
    """What the next hop is told by, beside `traceparent`."""


class PropagationChain:
    """The forms beside W3C's, of one process."""

    __slots__ = ("_after", "_before", "always", "fields")

    def __init__(
        self, before: Sequence[ContextForm], after: Sequence[ContextForm], *, names_w3c: bool
    ) -> None:
        """`before` and `after` are those that are believed rather than `traceparent`, and less."""
        self._before = tuple(before)
        self._after = tuple(after)
        self.fields: Final = frozenset[bytes]().union(*[form.fields for form in (*before, *after)])
        """Any of them means that W3C's are not all that matters."""
        self.always: Final = None if names_w3c else self._before[0]
        """What each request is told by: an app that reads no `traceparent` has to know of traces that begin here."""

    def join(self, lookup: Mapping[bytes, bytes], ids: IdSource) -> JoinedContext:
        """Go on with the trace of a request, or begin one. A decision without ids holds for what begins here."""
        forms = tuple(
            form
            for form in (*self._before, *self._after)
            if form is self.always or not form.fields.isdisjoint(lookup)
        )
        w3c = tracecontext.read(lookup.get(b"traceparent"), lookup.get(b"tracestate"), ids)
        came = self._first(lookup, is_w3c_valid=w3c.parent_id is not None)
        if not came.trace_id:
            if w3c.parent_id is not None:
                return JoinedContext(w3c, bool(w3c.flags & SAMPLED), forms)
            return JoinedContext(w3c, came.is_sampled, forms)
        is_same = came.trace_id == w3c.trace_id
        flags = (w3c.flags & RANDOM if is_same else 0) | (SAMPLED if came.is_sampled else 0)
        tracestate = w3c.tracestate if is_same else b""
        # Our own member tells which request a call was made for, whatever its trace is.
        context = TraceContext().take(came.trace_id, came.span_id or None, flags, tracestate, w3c.own_member)
        return JoinedContext(context, came.is_sampled, forms)

    def stated(self, lookup: Mapping[bytes, bytes]) -> CameContext:
        """What a request says that is not believed."""
        return self._first(lookup, is_w3c_valid=False)

    def _first(self, lookup: Mapping[bytes, bytes], *, is_w3c_valid: bool) -> CameContext:
        """Whoever has a trace id and is believed rather than W3C's, if that is valid; else the first decision."""
        decided = _NOTHING
        for form in self._before if is_w3c_valid else (*self._before, *self._after):
            came = form.read(lookup)
            if came.trace_id:
                return came
            if decided.is_sampled is None:
                decided = came
        return decided


def chain_of(names: Sequence[Propagator]) -> PropagationChain | None:
    """The forms in this order; None where there is none beside W3C's. One that is named again is passed over."""
    before: list[ContextForm] = []
    after: list[ContextForm] = []
    taken = before
    kinds = set()
    for name in names:
        form = _FORMS.get(name)
        if name is Propagator.TRACECONTEXT:
            taken = after
        elif form is not None and type(form) not in kinds:
            kinds.add(type(form))
            taken.append(form)
    if not before and not after:
        return None
    return PropagationChain(before, after, names_w3c=taken is after)


def lines_of(forms: Sequence[ContextForm], lookup: Mapping[bytes, bytes], ids: NextIds) -> bytes:
    """The lines of all these forms."""
    return b"".join([form.lines(lookup, ids) for form in forms])
