"""A database with an outbox, and relay processes."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.support.outbox_world import lay
from tests.support.relays import Relays


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    lay(database_url)
    found = create_async_engine(database_url)
    yield found
    await found.dispose()


@pytest.fixture
def relays(database_url: str, kafka: str, tmp_path: Path) -> Iterator[Relays]:
    """Start relays as processes of their own; none is left at the end."""
    found = Relays(database_url, kafka, tmp_path / "relay.log")
    yield found
    found.end()
