"""A database with an outbox."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from lethe_sandbox.stack import Addresses
from tests.support.databases import EMPTY, create
from tests.support.outbox_world import lay


@pytest.fixture(scope="session")
def laid(stack: Addresses) -> str:
    """A database with an outbox, to be copied; laying the tables takes longer than many a test."""
    name = create(stack)
    lay(stack.database_url(name))
    return name


@pytest.fixture
def database_template(request: pytest.FixtureRequest, laid: str) -> str:
    """With an outbox where a test asks for `engine`, else empty."""
    return laid if "engine" in request.fixturenames else EMPTY


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    found = create_async_engine(database_url)
    yield found
    await found.dispose()
