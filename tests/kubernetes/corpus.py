"""The manifests of the tests, and what `sidecar inject` makes of each.

`UPDATE_GOLDEN=1 pytest tests/kubernetes` writes the golden files anew; read the difference before it is kept.
"""

from __future__ import annotations

from pathlib import Path

from sidecar.kubernetes.inject import inject
from sidecar.kubernetes.settings import Settings

HERE = Path(__file__).parent
MANIFESTS = sorted((HERE / "manifests").glob("*.yaml"))
GOLDEN = HERE / "golden"
SETTINGS = Settings(image="sidecar:test", http_proxy=True)


def read(path: Path) -> str:
    """The text with its own line ends."""
    return path.read_bytes().decode()


def injected(path: Path, settings: Settings = SETTINGS) -> str:
    return inject(read(path), path.name, settings, rewrite_services=True).text
