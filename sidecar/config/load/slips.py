"""What somebody meant who wrote a value of another kind, or a key in another place: the remedy in a message.

Each is empty where there is no good guess. A remedy repeats a value only where the message has it already.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable

from sidecar.config.schema.readers import nearest
from sidecar.config.yaml.nodes import MappingNode, Node, Scalar, Sequence

_OFF_WORDS = frozenset({"off", "no", "none", "false", "disabled"})
_OFF = {
    "admission": "{mode: off}",
    "circuit_breaker": "{mode: disabled}",
    "deadline": "{mode: off}",
    "ejection": "{mode: off}",
    "retry": "{attempts: 0}",
}
"""How a policy is switched off; the others are off where they are left out."""
_OFF_UNSET = frozenset({"failover", "health_check"})
_OFF_NULL = frozenset({"fallback", "hedge", "mirror"})
"""Those that `defaults` may have given."""
_ONE_KEY = {
    "fallback": "{{upstream: {}}}",
    "failover": "[{}]",
    "health_check": "{{path: {}}}",
    "hedge": "{{after: {}}}",
    "load_balancing": "{{policy: {}}}",
    "mirror": "{{upstream: {}}}",
    "retry": "{{attempts: {}}}",
}
"""What one value alone means, in the place of a mapping."""
VERY_NEAR = 0.85
"""Of two keys: `method` and `methods`, not `request` and `request_headers`."""
_PLAIN = re.compile(r"[A-Za-z0-9/_.-]+")
_Loc = tuple[int | str, ...]


def of_kind(loc: _Loc, wanted: str, node: Node) -> str:
    """For a value that should have been a list or a mapping."""
    last = next((part for part in reversed(loc) if isinstance(part, str)), "")
    if last == "listeners":
        return of_part(last, node)
    if not isinstance(node, Scalar) or not node.text:
        return ""
    if last == "match":
        written = _quoted(node.text)
        return (
            f": write {{path: {{prefix: {written}}}}}"
            if node.text.startswith("/")
            else f": write {{hosts: [{written}]}}"
        )
    if wanted == "a list":
        text = node.text.upper() if last == "methods" else node.text
        return f": write [{_quoted(text)}]"
    if last == "path" and node.text.startswith("/"):
        written = _quoted(node.text)
        return f": write {{prefix: {written}}}, or {{exact: {written}}} for this path alone"
    return _of_policy(last, node.text)


def _of_policy(key: str, text: str) -> str:
    """For a policy that is one word."""
    if text.lower() in _OFF_WORDS:
        if key in _OFF_NULL:
            return ": leave it out, or write null to take back what `defaults` gives"
        return f": write {_OFF[key]}" if key in _OFF else ": leave it out" if key in _OFF_UNSET else ""
    return f": write {_ONE_KEY[key].format(_quoted(text))}" if key in _ONE_KEY else ""


def of_part(key: str, node: Node) -> str:
    """For a part of the top level."""
    if key == "routes" and isinstance(node, MappingNode):
        if "name" in node.entries:
            return ": write the route as an item of the list, with `- ` before its first key"
        first = next((name for name in node.entries if _PLAIN.fullmatch(name)), "checkout")
        return f": write each route as an item of the list, `- name: {first}`, and its other keys below"
    if isinstance(node, Sequence) and key in ("upstreams", "listeners"):
        value = "{endpoints: […]}" if key == "upstreams" else "{address: …}"
        return f": write each one under its name, `NAME: {value}`"
    return ""


def of_upstream(node: Node) -> str:
    """For an upstream that is no mapping."""
    if isinstance(node, Scalar) and node.text:
        return f": write {{endpoints: [{_quoted(node.text)}]}}"
    return ": write {endpoints: […]}" if isinstance(node, Sequence) else ""


def of_unknown_key(key: str, known: Iterable[str], below: Callable[[str], Iterable[str]]) -> str:
    """For a key that is none here: a near one, else the key under which it belongs, else all there are.

    Args:
        below: the keys that stand under a known one.
    """
    known = list(known)
    hint = nearest(key, known, least=VERY_NEAR)
    homes = [] if hint else [name for name in known if key in below(name)]
    if "match" in homes:  # `mirror` has `methods`, too; who writes one into the route means the condition
        homes = ["match"]
    if len(homes) == 1:
        return f": it belongs under `{homes[0]}`, as {homes[0]}: {{{key}: …}}"
    hint = hint or nearest(key, known)
    return hint or (f"; known here: {', '.join(known)}" if known else "")


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
