"""Which handler has a path and a method."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.serving.head import unescaped
from sidecar.serving.message import Handler, Request, Response


class Unmatched(Exception):
    """No handler has this path (404), or none has it with this method (405)."""

    def __init__(self, allowed: frozenset[str] = frozenset()) -> None:
        """`allowed`: methods that the path has; none: there is no such path."""
        super().__init__("no such method" if allowed else "no such path")
        self.status = 405 if allowed else 404
        self.fields = {"Allow": ",".join(sorted(allowed))} if allowed else {}


class Routes:
    """Handlers by path and method. A part of a path in braces, as in `/breakers/{route}`, stands for any text."""

    def __init__(self) -> None:
        self._fixed: dict[str, dict[str, Handler]] = {}
        self._named: dict[tuple[str, ...], dict[str, Handler]] = {}

    @property
    def operations(self) -> set[tuple[str, str]]:
        """Method and path of each."""
        named = (("/".join(parts), methods) for parts, methods in self._named.items())
        return {(method, path) for path, methods in (*self._fixed.items(), *named) for method in methods}

    def get(self, path: str, handler: Handler, *, has_head: bool = True) -> None:
        """Also for HEAD, unless `has_head` says no: that has no sense for an answer without an end."""
        self._add("GET", path, handler)
        if has_head:
            self._add("HEAD", path, handler)

    def post(self, path: str, handler: Handler) -> None:
        self._add("POST", path, handler)

    async def dispatch(self, request: Request) -> Response | None:
        """Have it handled. Raises: Unmatched, and what the handler does."""
        methods, request.matched = self._find(request.raw_path)
        handler = methods.get(request.method)
        if handler is None:
            raise Unmatched(frozenset(methods))
        return await handler(request)

    def _add(self, method: str, path: str, handler: Handler) -> None:
        if "{" in path:
            self._named.setdefault(tuple(path.split("/")), {})[method] = handler
        else:
            self._fixed.setdefault(path, {})[method] = handler

    def _find(self, raw_path: str) -> tuple[Mapping[str, Handler], Mapping[str, str]]:
        parts = [unescaped(part) for part in raw_path.split("/")]  # after: an escaped slash is none
        fixed = self._fixed.get("/".join(parts)) if not any("/" in part for part in parts) else None
        if fixed is not None:
            return fixed, {}
        for pattern, methods in self._named.items():
            if (matched := _matched(pattern, parts)) is not None:
                return methods, matched
        return {}, {}


def _matched(pattern: tuple[str, ...], parts: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    matched = {}
    for wanted, part in zip(pattern, parts, strict=True):
        if wanted[:1] == "{" and part:
            matched[wanted[1:-1]] = part
        elif wanted != part:
            return None
    return matched
