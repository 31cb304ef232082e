"""One node against one section: the values it holds, and each problem at its own place.

Goes on past what is wrong: the faulty leaves are taken out and the rest is read again, so that rules
between keys can still be checked and all problems are told at once.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Generic, TypeVar, get_args, get_origin

from sidecar.config.load import slips
from sidecar.config.problems import Problem, Report
from sidecar.config.schema import reading
from sidecar.config.schema.readers import NotAmong, nearest
from sidecar.config.schema.reading import KEY, Fault, FaultKind, Loc, UnreadableError
from sidecar.config.schema.section import Section, keys_of
from sidecar.config.yaml.nodes import MappingNode, Node, Scalar, Sequence, describe, to_data
from sidecar.core.dataclass import dataclass

S = TypeVar("S", bound=Section)
S_co = TypeVar("S_co", bound=Section, covariant=True)
_EXPECTED = {FaultKind.NO_MAPPING: "a mapping", FaultKind.NO_LIST: "a list"}


@dataclass(frozen=True, slots=True)
class Checked(Generic[S_co]):
    """A section as read, and which of its keys could not be (those are None in `value`)."""

    value: S_co
    node: MappingNode
    bad: frozenset[tuple[str, ...]] = frozenset()

    def is_bad(self, *path: str) -> bool:
        """True if the key, or something above it, was reported already."""
        return any(path[:length] in self.bad for length in range(1, len(path) + 1))

    def is_given(self, *path: str) -> bool:
        return self.node.entry(*path) is not None


def check(
    section: type[S], node: MappingNode, report: Report, names: type[Section] | None = None
) -> Checked[S] | None:
    """Read `node` as a `section`; None when too little of it is left.

    Args:
        names: the section whose keys are suggested for unknown ones at the top, if not `section` itself.
    """
    data = to_data(node)
    try:
        return Checked(reading.read(section, data), node)
    except UnreadableError as error:
        faults = error.faults
    for fault in faults:
        _tell(names or section, node, fault, report)
    for loc in sorted((fault.loc for fault in faults), key=_deepest_first):
        _take_out(data, loc)
    bad = frozenset(tuple(part for part in fault.loc if isinstance(part, str)) for fault in faults)
    try:
        return Checked(reading.read(section, data), node, bad)
    except UnreadableError:
        return None


def _deepest_first(loc: Loc) -> tuple[int, list[tuple[int, str]]]:
    """Later items of a list first, so that taking one out moves no other that is still to go."""
    return -len(loc), [(-part, "") if isinstance(part, int) else (0, part) for part in loc]


def _tell(section: type[Section], root: MappingNode, fault: Fault, report: Report) -> None:
    loc, kind = fault.loc, fault.kind
    key, node = _find(root, loc)
    if kind is FaultKind.UNKNOWN_KEY and key is not None:
        message = f"unknown key {key.text!r}"
        report.add(key.problem(message), partial(_of_unknown_key, key, message, section, loc[:-1]))
    elif isinstance(node, Scalar) and node.is_broken:
        return
    elif kind is FaultKind.MISSING_KEY:
        report.add(node.problem(f"missing key {loc[-1]!r}"))
    else:
        _tell_of_value(key if loc and loc[-1] == KEY and key is not None else node, fault, report)


def _tell_of_value(node: Node, fault: Fault, report: Report) -> None:
    wanted, error = _EXPECTED.get(fault.kind), fault.error
    if wanted is None:
        with_remedy = partial(_of_word, node, error) if isinstance(error, NotAmong) else None
        report.add(node.problem(str(error)), with_remedy)
    else:
        remedy = slips.of_kind(fault.loc, wanted, node)
        report.add(node.problem(f"expected {wanted}, got {describe(node)}{remedy}"))


def _of_word(node: Node, error: NotAmong) -> Problem:
    return node.problem(f"{error}{nearest(error.word, error.words)}")


def _of_unknown_key(key: Scalar, message: str, section: type[Section], loc: Loc) -> Problem:
    known = known_keys(section, loc)
    remedy = slips.of_unknown_key(key.text, known, lambda name: _below(section, (*loc, name)))
    return key.problem(f"{message}{remedy}")


def _below(section: type[Section], loc: Loc) -> list[str]:
    """The keys of the mapping at `loc`, or of each one in a list there."""
    annotation: Any = section
    for part in loc:
        annotation = _step(annotation, part)
    if get_origin(annotation) is list:
        loc = (*loc, 0)
    return known_keys(section, loc)


def _find(root: MappingNode, loc: Loc) -> tuple[Scalar | None, Node]:
    """The node at `loc`, with its key if it has one; where a short form stands for more, the short form."""
    key: Scalar | None = None
    node: Node = root
    for part in loc:
        if isinstance(node, MappingNode) and isinstance(part, str) and part in node.entries:
            entry = node.entries[part]
            key, node = entry.key, entry.value
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            key, node = None, node.items[part]
    return key, node


def _take_out(data: Any, loc: Loc) -> None:
    """Remove the value at `loc`; nothing is there when it is a missing key."""
    parent: Any = None
    last: Any = None
    for part in loc:
        is_there = (
            part in data if isinstance(data, dict) else isinstance(data, list) and isinstance(part, int)
        )
        if is_there:
            child: Any = part
            parent, last, data = data, child, data[child]
    if parent is not None and last == _named(loc):
        del parent[last]


def _named(loc: Loc) -> int | str | None:
    """The last part that stands in the file: `[key]` is behind a key that is itself wrong."""
    named = [part for part in loc if part != KEY]
    return named[-1] if named else None


def known_keys(section: type[Section], loc: Loc) -> list[str]:
    """The keys of the mapping at `loc` inside `section`; empty where any key may stand."""
    current: Any = section
    for part in loc:
        current = _step(current, part)
        if current is None:
            return []
    return list(keys_of(current)) if _is_section(current) else []


def _step(annotation: Any, part: int | str) -> Any:
    """The annotation one level down."""
    if _is_section(annotation):
        about = keys_of(annotation).get(str(part))
        return None if about is None else _bare(about.annotation)
    arguments = get_args(annotation)
    return _bare(arguments[-1]) if arguments else None


def _bare(annotation: Any) -> Any:
    """Without `| None` and `Annotated`."""
    while hasattr(annotation, "__metadata__") or type(None) in get_args(annotation):
        arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
        annotation = arguments[0]
    return annotation


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)
