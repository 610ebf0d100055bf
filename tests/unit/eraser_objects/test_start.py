"""Nothing is taken before database and S3 are as they must be."""

import asyncio
from typing import Any

import pytest

from lethe_eraser.execute.preflight import CHECKED, CheckedExecutor
from lethe_eraser.objects import BucketsUnfitError, ObjectStoreUnavailableError
from lethe_runtime.health import Readiness


class Fine:
    """Answers everything."""

    TRANSIENT = (ConnectionError,)

    def __init__(self) -> None:
        self.ran = False

    async def ask(self) -> None:
        """The database is there."""

    async def check(self) -> None:
        """The catalog fits."""

    async def run(self, stop: asyncio.Event) -> None:
        self.ran = True
        assert not stop.is_set()


class Buckets:
    """Raises these, one a time, and is fine then."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def check(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


def checked(fine: Any, buckets: Buckets, readiness: Readiness | None = None) -> CheckedExecutor:
    return CheckedExecutor(
        executor=fine,
        preflight=fine,
        buckets=buckets,
        probe=fine,
        readiness=readiness or Readiness(["database", "s3", CHECKED]),
    )


async def test_a_bucket_that_is_not_fit_ends_the_service_before_anything_is_taken() -> None:
    fine = Fine()
    unfit = Buckets(BucketsUnfitError(("bucket b: grant s3:ListBucket",)))
    readiness = Readiness(["database", "s3", CHECKED])
    # What the watches of a running process find.
    readiness.ok("database")
    readiness.ok("s3")
    with pytest.raises(BucketsUnfitError, match="grant"):
        await checked(fine, unfit, readiness).run(asyncio.Event())
    assert not fine.ran
    assert not readiness.report().ready, "a rolling deployment would have gone on"
    await checked(fine, Buckets(), readiness).run(asyncio.Event())
    assert readiness.report().ready


async def test_s3_that_is_away_at_the_start_is_waited_for() -> None:
    fine = Fine()
    away = Buckets(ObjectStoreUnavailableError("EndpointConnectionError"))
    await checked(fine, away).run(asyncio.Event())
    assert fine.ran
