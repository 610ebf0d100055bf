"""Intake's API on a real socket and a real database, in this process."""

import io
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.cipher import Cipher
from lethe_contracts.keyring import KeyRing
from lethe_contracts.subject import SubjectRefs
from lethe_intake.api import READ, WRITE, create_app
from lethe_intake.domain import Seal
from lethe_intake.metrics import IntakeMetrics
from lethe_intake.storage import MIGRATIONS, VERSION_TABLE, IntakeStorage
from lethe_outbox import Outbox
from lethe_runtime import database
from lethe_runtime.api_keys import create_key
from lethe_runtime.database import DatabaseProbe, create_engine
from lethe_runtime.health import Readiness
from lethe_sandbox.stack import Addresses
from tests.support.databases import create
from tests.support.logs import captured
from tests.support.serving import client, served

BODY_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Intake:
    """A running intake and what a test wants to know of it."""

    client: httpx.AsyncClient
    url: str
    engine: AsyncEngine
    ring: KeyRing
    registry: CollectorRegistry
    log: io.StringIO

    async def post(self, body: object, key: str, **headers: str) -> httpx.Response:
        return await self.client.post(
            "/v1/erasure-requests", json=body, headers={"Authorization": f"Bearer {key}", **headers}
        )

    async def get(self, path: str, key: str) -> httpx.Response:
        return await self.client.get(path, headers={"Authorization": f"Bearer {key}"})

    async def rows(self, query: str | TextClause, **parameters: object) -> Sequence[Any]:
        async with self.engine.connect() as connection:
            statement = text(query) if isinstance(query, str) else query
            return (await connection.execute(statement, parameters)).all()

    def counted(self, outcome: str) -> float:
        value = self.registry.get_sample_value("intake_requests_total", {"outcome": outcome})
        assert value is not None
        return value


@pytest.fixture(scope="session")
def migrated(stack: Addresses) -> str:
    """A migrated database; one for all tests, because making one takes longer than any test."""
    url = stack.database_url(create(stack))
    database.migrate(url, MIGRATIONS, VERSION_TABLE)
    return url


@pytest.fixture
def intake_url(migrated: str) -> str:
    """A database with intake's tables and nothing in them."""
    with database.connected(migrated, "test") as connection:
        connection.execute(
            text(
                "truncate lethe.erasure_request, lethe.idempotency, lethe.api_key, "
                "lethe.outbox, lethe.inbox"
            )
        )
    return migrated


@pytest.fixture
def key(intake_url: str) -> str:
    """A key of team `crm` that may do everything."""
    return make_key(intake_url, "crm")


def make_key(url: str, team: str, *scopes: str) -> str:
    with database.connected(url, "test") as connection:
        return create_key(connection, team, scopes or (WRITE, READ))


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What intake logs, at DEBUG."""
    with captured("intake", "DEBUG") as stream:
        yield stream


@pytest.fixture
async def intake(intake_url: str, log: io.StringIO) -> AsyncIterator[Intake]:
    ring = KeyRing({1: b"1" * 32, 2: b"2" * 32})
    registry = CollectorRegistry()
    engine = create_engine(intake_url, application_name="lethe-intake")
    probe = DatabaseProbe(engine, MIGRATIONS, VERSION_TABLE)
    await probe.ask()
    app = create_app(
        storage=IntakeStorage(engine, Outbox("lethe"), ZoneInfo("Asia/Seoul")),
        engine=engine,
        seal=Seal(SubjectRefs(ring), Cipher(ring)),
        metrics=IntakeMetrics(registry),
        probe=probe,
        readiness=Readiness([]),
        registry=registry,
        body_limit_bytes=BODY_LIMIT,
    )
    async with database.disposing(engine), served(app) as url, client(url) as http:
        yield Intake(http, url, engine, ring, registry, log)
