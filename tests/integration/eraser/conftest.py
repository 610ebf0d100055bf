"""The world of `world.py`, fresh for every test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from lethe_contracts.keyring import KeyRing
from lethe_eraser.storage.tables import MIGRATIONS, VERSION_TABLE
from lethe_runtime import database
from lethe_sandbox.stack import Addresses, S3Address
from tests.integration.eraser.world import PRODUCT, World, make_catalog, open_store
from tests.support.databases import create
from tests.support.factories import BucketFactory


@pytest.fixture(scope="session")
def database_template(stack: Addresses) -> str:
    """Migrated, with the product's tables; once, because that takes longer than most tests."""
    name = create(stack)
    url = stack.database_url(name)
    database.migrate(url, MIGRATIONS, VERSION_TABLE)
    with database.connected(url, "test") as connection:
        for statement in PRODUCT.split(";"):
            if statement.strip():
                connection.execute(text(statement))
    return name


@pytest.fixture
async def world(
    database_url: str, s3: S3Address, bucket: BucketFactory, tmp_path: Path
) -> AsyncIterator[World]:
    """Migrated database with the product's tables, three buckets, nobody in them."""
    buckets = {
        "uploads": bucket(),
        "results": bucket(),
        "documents": bucket(versioned=True),
    }
    catalog = make_catalog(tmp_path, buckets)
    engine = database.create_engine(database_url, application_name="test", pool_size=10)
    async with database.disposing(engine), open_store(s3, catalog) as store:
        world = World(
            engine=engine,
            s3=s3.client(),
            store=store,
            catalog=catalog,
            buckets=buckets,
            ring=KeyRing.generate(),
        )
        await world.settled()
        yield world
