"""The sample product, seeded small, and its catalog."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

import lethe_sandbox
from lethe_eraser.catalog import Catalog, load
from lethe_eraser.objects import ObjectStore, S3Options
from lethe_sandbox.ground_truth import GroundTruth
from lethe_sandbox.seed import seed_sample
from lethe_sandbox.stack import Addresses, S3Address
from tests.support.databases import own_database

SAMPLE = Path(lethe_sandbox.__file__).parent / "catalog.yaml"


@pytest.fixture(scope="module")
def sample_url(stack: Addresses) -> Iterator[str]:
    with own_database(stack) as url:
        yield url


@pytest.fixture(scope="module")
def truth(
    sample_url: str, stack: Addresses, tmp_path_factory: pytest.TempPathFactory
) -> GroundTruth:
    path = tmp_path_factory.mktemp("truth") / "ground_truth.json"
    return seed_sample(sample_url, stack.s3, path, scale=0.001)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load(SAMPLE)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    opened = create_async_engine(database_url)
    yield opened
    await opened.dispose()


@pytest.fixture
async def connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Commits at once, unless the test begins a transaction of its own."""
    async with engine.connect() as opened:
        yield await opened.execution_options(isolation_level="AUTOCOMMIT")


@pytest.fixture
async def sample(sample_url: str, truth: GroundTruth) -> AsyncIterator[AsyncConnection]:
    """A connection to the seeded sample, whose changes are rolled back."""
    assert truth.rows
    opened = create_async_engine(sample_url)
    async with opened.connect() as rolled_back:
        yield rolled_back
        await asyncio.shield(rolled_back.rollback())
    await opened.dispose()


@pytest.fixture
async def store(s3: S3Address, catalog: Catalog) -> AsyncIterator[ObjectStore]:
    options = S3Options(
        region=s3.region,
        endpoint_url=s3.endpoint,
        access_key_id=s3.access_key_id,
        secret_access_key=SecretStr(s3.secret_access_key),
    )
    async with ObjectStore(options, catalog.buckets) as opened:
        yield opened
