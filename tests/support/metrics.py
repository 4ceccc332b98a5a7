"""What a server's ``/metrics`` tells, read by the strict parser of Prometheus's client."""

from collections.abc import Mapping

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.support.servers import Caller

Samples = Mapping[str, Mapping[tuple[str, ...], float]]
"""Value by name of the sample and values of its labels."""


async def metrics_text(caller: Caller) -> str:
    async with caller.session.get(f"{caller.url}/metrics", headers=caller.headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return await response.text()


async def metrics(caller: Caller) -> Samples:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(await metrics_text(caller)):
        for sample in family.samples:
            values = found.setdefault(sample.name, {})
            labels = tuple(sample.labels.values())
            assert labels not in values
            values[labels] = sample.value
    return found


async def refused(caller: Caller, method: str, path: str) -> tuple[int, dict[str, object]]:
    """Status and error of a call that fails."""
    async with caller.session.request(
        method, caller.url + path, headers=caller.headers, timeout=aiohttp.ClientTimeout(total=60)
    ) as response:
        assert response.status >= 400, await response.text()
        return response.status, (await response.json(content_type=None))["error"]
