"""Every test here runs on two S3 servers; neither is AWS, and they err in different places."""

from collections.abc import AsyncIterator

import pytest

from lethe_eraser.catalog import Bucket
from lethe_eraser.objects import ObjectStore
from lethe_sandbox.stack import S3Address
from tests.support.factories import BucketFactory, make_buckets
from tests.support.s3_objects import options_of


@pytest.fixture(params=["moto", "versitygw"])
def server(request: pytest.FixtureRequest) -> S3Address:
    """One of the two."""
    address: S3Address = request.getfixturevalue("s3" if request.param == "moto" else "versitygw")
    return address


@pytest.fixture
def make_bucket(server: S3Address) -> BucketFactory:
    """Make buckets on it."""
    return make_buckets(server)


@pytest.fixture
def plain(make_bucket: BucketFactory) -> str:
    return make_bucket()


@pytest.fixture
def versioned(make_bucket: BucketFactory) -> str:
    return make_bucket(versioned=True)


@pytest.fixture
async def store(server: S3Address, plain: str, versioned: str) -> AsyncIterator[ObjectStore]:
    async with ObjectStore(
        options_of(server), {name: Bucket(name) for name in (plain, versioned)}
    ) as opened:
        yield opened
