"""What is installed for a Python, as CycloneDX 1.6: python sbom.py SITE-PACKAGES NAME VERSION > sbom.json.

The same text for the same packages: no time, no serial number, names in order. Standard library alone.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def sbom(packages: list[Distribution], name: str, version: str) -> dict[str, Any]:
    """`name` is the package that the others are for."""
    found = {_normal(one.metadata["Name"]): one for one in packages}
    own = found.pop(_normal(name), None)
    root = _component(name, version, own)
    python = {
        "type": "platform",
        "bom-ref": f"python@{platform.python_version()}",
        "name": "python",
        "version": platform.python_version(),
        "cpe": f"cpe:2.3:a:python:python:{platform.python_version()}:*:*:*:*:*:*:*",
    }
    others = [_component(one.metadata["Name"], one.version, one) for _, one in sorted(found.items())]
    dependencies = [
        _needs(one, found) for one in ([own] if own else []) + [one for _, one in sorted(found.items())]
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": [python, *others],
        "dependencies": dependencies,
    }


def _component(name: str, version: str, package: Distribution | None) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _reference(name, version),
        "name": name,
        "version": version,
        "purl": _reference(name, version),
    }
    told = package.metadata.get("License-Expression") if package is not None else None
    if told:
        component["licenses"] = [{"expression": told}]
    return component


def _needs(package: Distribution, found: dict[str, Distribution]) -> dict[str, Any]:
    """Those of its requirements that are there; what belongs to an extra that nobody asked for is not."""
    names = {_normal(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]) for line in package.requires or []}
    below = sorted(
        _reference(one.metadata["Name"], one.version) for key, one in found.items() if key in names
    )
    return {"ref": _reference(package.metadata["Name"], package.version), "dependsOn": below}


def _reference(name: str, version: str) -> str:
    """A package URL (https://github.com/package-url/purl-spec)."""
    return f"pkg:pypi/{_normal(name)}@{version}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    folder, own_name, own_version = sys.argv[1:]
    print(json.dumps(sbom(list(distributions(path=[folder])), own_name, own_version), indent=1))
