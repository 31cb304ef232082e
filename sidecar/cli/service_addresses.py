"""Which upstreams are one virtual address of a Kubernetes Service (ClusterIP), so that no pod of it can be ejected.

Asked of the cluster's own nameservers, and so inside a cluster alone. The reverse name of a ClusterIP is that of the
Service, `payments.shop.svc.cluster.local`; a pod behind a headless one has a name of its own before it (Kubernetes'
DNS specification, 2.3.2 and 2.4.2). What cannot be learned in time is no warning: the names may be another cluster's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from itertools import islice
from typing import Final

from sidecar.cli.tls_files import Finding
from sidecar.core.snapshot import Snapshot, Source
from sidecar.upstream.lookup import CaresLookup, LookupFailed
from sidecar.upstream.reverse_lookup import names_of

IN_CLUSTER: Final = "KUBERNETES_SERVICE_HOST"
"""Every container of a pod has it."""
MOST_NAMES: Final = 256
AT_ONCE: Final = 32
PATIENCE_SECONDS: Final = 3.0
"""For all of them together."""
_FAMILIES: Final = 2
"""A Service has an address of each family at most; a name with more addresses is a headless one."""


def virtual_addresses(
    snapshot: Snapshot, environ: Mapping[str, str], lookup: CaresLookup | None = None
) -> Iterator[Finding]:
    """A warning for each upstream whose only endpoint is a ClusterIP. Nothing is asked outside of a cluster."""
    if not environ.get(IN_CLUSTER):
        return
    names = dict(islice(_lone_names(snapshot), MOST_NAMES))
    found = asyncio.run(_services(frozenset(names.values()), lookup or CaresLookup())) if names else {}
    for upstream, name in names.items():
        if name in found:
            text = (
                f"{name} is the address of a Service ({found[name]}): one endpoint, however many pods are behind it, "
                "so none of them can be ejected; a headless Service (`clusterIP: None`) or `kubernetes://` names them"
            )
            yield Finding(f"upstreams.{upstream}.endpoints", text, is_warning=True)


def _lone_names(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Upstreams that are one name, with it."""
    for upstream in snapshot.upstreams.values():
        if len(upstream.endpoints) == 1:
            (entry,) = upstream.endpoints
            if entry.source is Source.ADDRESS and entry.host and not _is_address(entry.host):
                yield upstream.name, entry.host


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def _services(names: frozenset[str], lookup: CaresLookup) -> dict[str, str]:
    """By name, the address of the Service that it is; what was learned in time."""
    found: dict[str, str] = {}
    places = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> None:
        async with places:
            try:
                addresses = (await lookup(name)).addresses
                if len(addresses) <= _FAMILIES and all(
                    [await _is_service(each, lookup) for each in addresses]
                ):
                    found[name] = addresses[0]
            except LookupFailed:
                pass

    try:
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            for name in sorted(names):
                group.create_task(one(name))
    except TimeoutError:
        pass
    return found


async def _is_service(address: str, lookup: CaresLookup) -> bool:
    """Raises: LookupFailed, if nobody knows what the address is."""
    return any(map(_names_service, await names_of(address, lookup)))


def _names_service(name: str) -> bool:
    """Whether it is `SERVICE.NAMESPACE.svc.ZONE`, with no pod's name before it."""
    labels = name.split(".")
    return len(labels) > 3 and labels[2] == "svc" and labels[3] != "svc"
