from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from lethe_runtime.health import Readiness
from lethe_runtime.http import ops_app


@pytest.fixture
def readiness() -> Readiness:
    return Readiness(["database"], optional=["redis"])


@pytest.fixture
async def client(readiness: Readiness) -> AsyncIterator[httpx.AsyncClient]:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc()
    transport = httpx.ASGITransport(ops_app("sample", readiness, registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_alive_says_nothing_of_others(client: httpx.AsyncClient) -> None:
    response = await client.get("/healthz")

    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_ready_names_what_is_waited_for(
    client: httpx.AsyncClient, readiness: Readiness
) -> None:
    readiness.away("database", "OperationalError")
    response = await client.get("/readyz")

    assert response.status_code == 503
    document = response.json()
    assert document["ready"] is False
    assert document["dependencies"]["database"]["status"] == "away"
    assert document["dependencies"]["database"]["error_class"] == "OperationalError"
    assert document["dependencies"]["redis"]["required"] is False

    readiness.ok("database")
    response = await client.get("/readyz")

    assert response.status_code == 200
    assert response.json()["ready"] is True


async def test_metrics_are_those_of_the_registry(client: httpx.AsyncClient) -> None:
    response = await client.get("/metrics")

    assert response.headers["content-type"].startswith("text/plain; version=")
    assert "things_total 1.0" in response.text
    assert "python_info" not in response.text


async def test_unknown_paths_are_problems(client: httpx.AsyncClient) -> None:
    response = await client.get("/docs")

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
