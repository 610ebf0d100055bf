"""What the API says of itself."""

from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from lethe_contracts.cipher import Cipher
from lethe_contracts.keyring import KeyRing
from lethe_contracts.states import RequestState
from lethe_contracts.subject import SubjectRefs
from lethe_intake.api import create_app
from lethe_intake.domain import Seal
from lethe_intake.metrics import IntakeMetrics
from lethe_runtime.health import Readiness

RING = KeyRing({1: b"1" * 32})


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    nothing: Any = None
    return create_app(
        storage=nothing,
        engine=nothing,
        seal=Seal(SubjectRefs(RING), Cipher(RING)),
        metrics=IntakeMetrics(CollectorRegistry()),
        probe=nothing,
        readiness=Readiness([]),
        registry=CollectorRegistry(),
        body_limit_bytes=1024,
    ).openapi()


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert set(document["paths"]) == {
        "/v1/erasure-requests",
        "/v1/erasure-requests/{request_id}",
        "/healthz",
        "/readyz",
        "/metrics",
    }


def test_every_refusal_is_a_documented_problem(document: dict[str, Any]) -> None:
    post = document["paths"]["/v1/erasure-requests"]["post"]["responses"]
    get = document["paths"]["/v1/erasure-requests/{request_id}"]["get"]["responses"]

    assert set(post) == {"200", "202", "400", "401", "403", "413", "415", "422", "503"}
    assert set(get) == {"200", "401", "403", "404", "422", "503"}
    for status, answer in [*post.items(), *get.items()]:
        if int(status) >= 400:
            assert list(answer["content"]) == ["application/problem+json"]
    assert "Location" in post["202"]["headers"]
    assert "Location" in post["200"]["headers"]


def test_a_key_is_needed_and_said_to_be(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert schemes["TeamKey"]["type"] == "http"
    assert schemes["TeamKey"]["scheme"] == "bearer"
    for path in ("/v1/erasure-requests", "/v1/erasure-requests/{request_id}"):
        (operation,) = document["paths"][path].values()
        assert operation["security"] == [{"TeamKey": []}]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(part: Any) -> set[str]:
        if isinstance(part, dict):
            own = {part["$ref"]} if "$ref" in part else set()
            return own.union(*(references(value) for value in part.values()))
        if isinstance(part, list):
            return set().union(*(references(value) for value in part))
        return set()

    schemas = document["components"]["schemas"]
    assert references(document) <= {f"#/components/schemas/{name}" for name in schemas}


def test_the_subject_is_in_no_answer(document: dict[str, Any]) -> None:
    answer = document["components"]["schemas"]["RequestDocument"]["properties"]

    assert not any("subject" in name for name in answer)
    assert set(document["components"]["schemas"]["RequestState"]["enum"]) == set(RequestState)


class Probe:
    """Stands for a database that is not migrated, or in which nobody foresaw what happens."""

    def __init__(self, *, broken: bool) -> None:
        self._broken = broken

    @property
    def migrated(self) -> bool:
        if self._broken:
            raise ZeroDivisionError
        return False


@pytest.mark.parametrize(("broken", "status"), [(False, 503), (True, 500)])
async def test_a_submission_that_fails_here_is_counted(*, broken: bool, status: int) -> None:
    nothing: Any = None
    probe: Any = Probe(broken=broken)
    registry = CollectorRegistry()
    app = create_app(
        storage=nothing,
        engine=nothing,
        seal=Seal(SubjectRefs(RING), Cipher(RING)),
        metrics=IntakeMetrics(registry),
        probe=probe,
        readiness=Readiness(["database"]),
        registry=registry,
        body_limit_bytes=1024,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post("/v1/erasure-requests", json={})).status_code == status
        # Whoever asks whether it is ready submits nothing.
        assert (await client.get("/readyz")).status_code == 503

    counted = {
        outcome: registry.get_sample_value("intake_requests_total", {"outcome": outcome})
        for outcome in ("failed", "refused")
    }
    assert counted == {"failed": 1, "refused": 0}


def test_the_metrics_are_there_from_the_start() -> None:
    registry = CollectorRegistry()
    IntakeMetrics(registry)

    for outcome in ("accepted", "replayed", "joined", "refused", "failed"):
        assert registry.get_sample_value("intake_requests_total", {"outcome": outcome}) == 0
    for state in ("requested", "accepted", "running", "held", "erased"):
        assert registry.get_sample_value("intake_open_requests", {"state": state}) == 0
