"""Kubernetes YAML as people and programs write it: the same data in any mixture of YAML's styles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

_TEXTS = ("a", "web", "x: y", "# no comment", "it's", 'say "hi"', "true", "8080", "", "é", "a\\b", "/bin/app")
_COMMENTS = ("", "", "", "", "# why", "#", "# - name: sidecar", "# é: {")


_SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}


class _Empty:
    """A value that is written as nothing, or as null."""


EMPTY = _Empty()
_VARIABLES = (
    {"name": "A", "value": "1"},
    {"name": "no_proxy", "value": "x"},
    {"name": "NO_PROXY", "value": "a,localhost"},
    {"name": "no_proxy"},
    {"name": "NO_PROXY", "value": EMPTY},
    {"name": "no_grpc_proxy", "valueFrom": _SECRET},
)


@dataclass
class _Writer:
    """Writes data as YAML, with every choice of style drawn."""

    draw: st.DrawFn
    dashes: int
    """How far dashes stand in from their key, the same in one file."""

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def block(self, data: dict[str, Any], indent: int) -> list[str]:
        lines: list[str] = []
        for key, value in data.items():
            lines += self._between(indent)
            lines += self._entry(" " * indent + self._key(key) + ":", value, indent)
        return lines

    def _entry(self, head: str, value: Any, indent: int) -> list[str]:
        if isinstance(value, dict) and value and self.one_of(True, True, False):
            return [head + self._tail(), *self.block(value, indent + self.one_of(2, 2, 4))]
        if isinstance(value, list) and value and self.one_of(True, True, False):
            return [head + self._tail(), *self._items(value, indent + self.dashes)]
        text = self.flow(value)
        return [(head + " " + text if text else head) + self._tail()]

    def _items(self, items: list[Any], indent: int) -> list[str]:
        lines: list[str] = []
        for item in items:
            lines += self._between(indent)
            if isinstance(item, dict) and item and self.one_of(True, True, False):
                inner = self.block(item, indent + 2)
                first = next(at for at, line in enumerate(inner) if line.strip() and line.strip()[0] != "#")
                lines += inner[:first]
                lines += [" " * indent + "- " + inner[first].lstrip(" "), *inner[first + 1 :]]
            else:
                lines.append(" " * indent + "- " + (self.flow(item) or "null") + self._tail())
        return lines

    def flow(self, value: Any, *, is_inside: bool = False) -> str:
        """In one line; nothing at all for what is left empty, where that can be read."""
        if value is EMPTY:
            return str(self.one_of(*(("null", "~") if is_inside else ("", "null", "~"))))
        space = self.one_of("", " ")
        if isinstance(value, dict):
            inner = ", ".join(f"{self._key(k)}: {self.flow(v, is_inside=True)}" for k, v in value.items())
            return f"{{{space}{inner}{space}}}"
        if isinstance(value, list):
            return f"[{space}{', '.join(self.flow(v, is_inside=True) for v in value)}{space}]"
        return self._scalar(value)

    def _scalar(self, value: Any) -> str:
        if not isinstance(value, str):
            return str(value)
        if value.isalpha() and value.isascii() and value != "true" and self.one_of(True, False):
            return value
        if "\\" not in value and self.one_of(True, False):
            return "'" + value.replace("'", "''") + "'"
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def _key(self, key: str) -> str:
        return f'"{key}"' if self.one_of(False, False, False, True) else key

    def _tail(self) -> str:
        comment = self.one_of(*_COMMENTS)
        return f"{self.one_of(' ', '   ')}{comment}" if comment else self.one_of("", "", "", " ")

    def _between(self, indent: int) -> list[str]:
        comment = self.one_of(*_COMMENTS)
        if comment:
            return [" " * self.one_of(indent, indent, 0, indent + 2) + comment]
        return [self.one_of("", "  ")] if self.one_of(False, False, False, True) else []


def _some(draw: st.DrawFn, kinds: st.SearchStrategy[Any]) -> Any:
    """A value, an empty one, or None for a key that is not there."""
    return draw(st.one_of(kinds, st.sampled_from([None, EMPTY])))


def _given(**entries: Any) -> dict[str, Any]:
    return {key: value for key, value in entries.items() if value is not None}


@st.composite
def _containers(draw: st.DrawFn, names: str) -> list[dict[str, Any]]:
    found = []
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)):
        ports = st.lists(
            st.sampled_from([{"containerPort": 8080}, {"name": "http", "containerPort": 80}]), max_size=2
        )
        env = st.lists(
            st.sampled_from(_VARIABLES),
            max_size=3,
            unique_by=lambda item: item["name"],
        )
        entries = _given(
            name=f"app-{name}",
            image=draw(st.sampled_from(_TEXTS)),
            ports=_some(draw, ports),
            env=_some(draw, env),
            args=_some(draw, st.lists(st.sampled_from(_TEXTS), max_size=2)),
        )
        found.append(dict(draw(st.permutations(list(entries.items())))))
    return found


@st.composite
def _template(draw: st.DrawFn) -> dict[str, Any]:
    volumes = st.lists(
        st.sampled_from([{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "c"}}]),
        max_size=2,
        unique_by=lambda item: item["name"],
    )
    spec = _given(
        containers=draw(_containers("abc")),
        initContainers=_some(draw, _containers("xyz")),
        volumes=_some(draw, volumes),
        imagePullSecrets=_some(draw, st.sampled_from([[{"name": "a"}], [{"name": "b"}], []])),
        restartPolicy=draw(st.sampled_from([None, "Always", "Never"])),
        nodeSelector=_some(draw, st.just({"disk": "ssd"})),
    )
    annotations = st.sampled_from(
        [{}, {"note": "x: y"}, {"sidecar.io/http-proxy": "true"}, {"sidecar.io/mode": "container"}]
    )
    metadata = _some(
        draw,
        st.builds(
            lambda labels, found: _given(labels=labels, annotations=found),
            st.sampled_from([None, {"app": "web"}]),
            st.one_of(annotations, st.just(EMPTY), st.none()),
        ),
    )
    entries = _given(metadata=metadata, spec=dict(draw(st.permutations(list(spec.items())))))
    return dict(draw(st.permutations(list(entries.items()))))


@st.composite
def _object(draw: st.DrawFn) -> dict[str, Any]:
    template = draw(_template())
    kind = draw(st.sampled_from(["Pod", "Deployment", "CronJob", "Rollout", "List", "ConfigMap"]))
    head = {"apiVersion": "v1", "kind": kind}
    if kind == "ConfigMap":
        return {**head, "data": {"pod": "spec: {containers: [{name: a}]}"}}
    if kind == "Pod":
        return {**head, **template}
    if kind == "List":
        return {**head, "items": [{"apiVersion": "v1", "kind": "Pod", **template}]}
    if kind == "CronJob":
        return {**head, "metadata": {"name": "c"}, "spec": {"jobTemplate": {"spec": {"template": template}}}}
    return {**head, "metadata": {"name": "d"}, "spec": {"replicas": 2, "template": template}}


@st.composite
def manifests(draw: st.DrawFn) -> str:
    """The text of one to three documents."""
    writer = _Writer(draw, draw(st.sampled_from([0, 2])))
    pieces = []
    for number, data in enumerate(draw(st.lists(_object(), min_size=1, max_size=3))):
        if number or draw(st.booleans()):
            pieces.append("---" + draw(st.sampled_from(["", " # a document"])))
        pieces += writer.block(data, 0)
    newline = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    text = newline.join(pieces) + draw(st.sampled_from([newline, newline, newline + newline, ""]))
    return draw(st.sampled_from(["", "", "\ufeff"])) + text
