"""Reporting on a real database: its API on a real socket, and the whole service on real topics."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import psycopg
import pytest
import structlog
from prometheus_client import CollectorRegistry
from psycopg import sql
from sqlalchemy import text

from lethe_reporting.api import create_app
from lethe_reporting.storage import MIGRATIONS, VERSION_TABLE
from lethe_reporting.storage.dead_letters import DeadLetters
from lethe_reporting.storage.requests import Requests
from lethe_runtime import database
from lethe_runtime.database import DatabaseProbe, create_engine
from lethe_runtime.health import Readiness
from lethe_runtime.http import HttpServer
from lethe_runtime.logging import configure
from lethe_sandbox.stack import Addresses
from tests.integration.reporting.running import Api, a_client, make_key


@pytest.fixture(scope="session")
def migrated(stack: Addresses) -> str:
    """A migrated database; one for all tests, because making one takes longer than any test."""
    name = f"reporting_{uuid4().hex}"
    with psycopg.connect(stack.database_url("postgres", driver=""), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = stack.database_url(name)
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
    """What reporting logs, at DEBUG."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    configure("reporting", "DEBUG", stream=stream)
    yield stream
    root.handlers[:], level = before
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


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
    server = HttpServer(app, "127.0.0.1", 0)
    stop = asyncio.Event()
    serving = asyncio.create_task(server.run(stop))
    await server.listening.wait()
    client = a_client(server.port, make_key(reporting_url))
    async with client, database.disposing(engine):
        yield Api(client, engine, log)
        stop.set()
        await serving
