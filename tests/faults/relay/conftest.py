"""A database with an outbox."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.support.outbox_world import lay


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    lay(database_url)
    found = create_async_engine(database_url)
    yield found
    await found.dispose()
