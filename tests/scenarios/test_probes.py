"""The probes' listener may be reached by everybody, so it only ever answers."""

import pytest

from tests.scenarios.operator import Operator
from tests.scenarios.stage import stage
from tests.support.process import free_ports
from tests.support.proxy import HEADER


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/metrics"])
async def test_no_method_but_reading_is_taken(path: str) -> None:
    (port,) = free_ports(1)
    header = HEADER.replace('probes: {address: "127.0.0.1:0"}', f'probes: {{address: "127.0.0.1:{port}"}}')
    async with stage(header=header) as to:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert (await Operator(port).send(method, path)).status == 405
        assert (await Operator(port).send("GET", path)).status == 200
        assert to.worker.is_ready


@pytest.mark.parametrize("path", ["/drain", "/quitquitquit", "/reload", "/breakers/app/open", "/config", "/"])
async def test_nothing_of_the_admin_api_is_there(path: str) -> None:
    (port,) = free_ports(1)
    header = HEADER.replace('probes: {address: "127.0.0.1:0"}', f'probes: {{address: "127.0.0.1:{port}"}}')
    async with stage(header=header) as to:
        for method in ("GET", "POST"):
            assert (await Operator(port).send(method, path)).status == 404
        assert to.worker.is_ready
