"""Reporting on a real database: its API on a real socket, and the whole service on real topics."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator

import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from lethe_contracts.topics import TOPICS
from lethe_outbox import ensure_topics
from lethe_relay.topics import specs
from lethe_reporting.api import create_app
from lethe_reporting.consumer import DEAD_LETTER_GROUP, GROUP
from lethe_reporting.container import ReportingContainer, connections, loops
from lethe_reporting.settings import ReportingSettings
from lethe_reporting.storage import MIGRATIONS, VERSION_TABLE
from lethe_reporting.storage.dead_letters import DEAD_LETTER_TOPICS, DeadLetters
from lethe_reporting.storage.requests import Requests
from lethe_runtime import database
from lethe_runtime.database import DatabaseProbe, create_engine
from lethe_runtime.health import Readiness
from lethe_runtime.lifecycle import run_loops
from lethe_sandbox.stack import Addresses
from tests.integration.reporting.running import Api, Service, make_key
from tests.support.databases import create
from tests.support.logs import captured
from tests.support.serving import client, served
from tests.support.topics import skip_to_end


@pytest.fixture(scope="session")
def migrated(stack: Addresses) -> str:
    """A migrated database; one for all tests, because making one takes longer than any test."""
    url = stack.database_url(create(stack))
    database.migrate(url, MIGRATIONS, VERSION_TABLE)
    return url


@pytest.fixture
def reporting_url(migrated: str) -> str:
    """A database with reporting's tables and nothing in them."""
    with database.connected(migrated, "test") as connection:
        connection.execute(
            text(
                "truncate lethe.event_log, lethe.request, lethe.api_key, lethe.inbox, "
                "lethe.dead_letter"
            )
        )
    return migrated


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What reporting logs."""
    with captured("reporting", "INFO") as stream:
        yield stream


@pytest.fixture
async def api(reporting_url: str, log: io.StringIO) -> AsyncIterator[Api]:
    engine = create_engine(reporting_url, application_name="lethe-reporting")
    probe = DatabaseProbe(engine, MIGRATIONS, VERSION_TABLE)
    await probe.ask()
    app = create_app(
        requests_kept=Requests(engine),
        letters=DeadLetters(engine),
        engine=engine,
        probe=probe,
        readiness=Readiness([]),
        registry=CollectorRegistry(),
    )
    key = make_key(reporting_url)
    async with database.disposing(engine), served(app) as url, client(url, key) as http:
        yield Api(http, engine, log)


@pytest.fixture
async def service_environment(reporting_url: str, kafka: str, redis_url: str) -> dict[str, str]:
    """The variables of a service on an empty database, at the end of topics that are there."""
    await ensure_topics(kafka, specs(replication_factor=1))
    await skip_to_end(kafka, GROUP, TOPICS)
    await skip_to_end(kafka, DEAD_LETTER_GROUP, DEAD_LETTER_TOPICS)
    return {
        "LETHE_REPORTING_DATABASE_URL": reporting_url,
        "LETHE_REPORTING_KAFKA_BOOTSTRAP": kafka,
        "LETHE_REPORTING_REDIS_URL": redis_url,
        "LETHE_REPORTING_HTTP_PORT": "0",
    }


@pytest.fixture
async def service(
    service_environment: dict[str, str], reporting_url: str, kafka: str, log: io.StringIO
) -> AsyncIterator[Service]:
    """The whole of reporting, in this process."""
    settings = ReportingSettings.model_validate(
        {
            name.removeprefix("LETHE_REPORTING_").lower(): value
            for name, value in service_environment.items()
        }
    )
    container = ReportingContainer(settings=settings)
    stop = asyncio.Event()
    running = asyncio.create_task(
        run_loops("reporting", loops(container), stop=stop, drain_seconds=20)
    )
    await container.server().listening.wait()
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all")
    await producer.start()
    url = f"http://127.0.0.1:{container.server().port}"
    async with client(url, make_key(reporting_url)) as http, connections(container):
        yield Service(
            http, container.engine(), container.registry(), producer, service_environment, log
        )
        await producer.stop()
        stop.set()
        assert await running == 0
