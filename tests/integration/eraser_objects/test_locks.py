"""What becomes of a person whose objects are locked; on versitygw: moto tells no retention."""

from datetime import UTC, datetime, timedelta

import pytest

from lethe_contracts.events import Blocked
from lethe_contracts.states import BlockReason
from lethe_sandbox.stack import S3Address
from tests.integration.eraser.world import SUBJECT, to_the_end
from tests.integration.eraser_objects.conftest import MakeWorld
from tests.support.factories import BucketFactory


@pytest.fixture
def s3(versitygw: S3Address) -> S3Address:
    """The whole world stands on the stricter server."""
    return versitygw


async def test_a_locked_object_blocks_its_row_and_says_until_when(
    with_catalog: MakeWorld, bucket: BucketFactory
) -> None:
    world = await with_catalog(results=bucket(locked=True))
    first, second, third = [await world.sketch(number) for number in range(3)]
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    results = world.buckets["results"]
    for number, days in ((0, 0), (1, 2)):
        world.s3.put_object_retention(
            Bucket=results,
            Key=f"public/{SUBJECT}-{number}.png",
            Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until + timedelta(days=days)},
        )
    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser()) == "blocked"
    event = (await world.said())[-1].event
    assert isinstance(event, Blocked)
    assert event.reasons == {BlockReason.OBJECT_LOCKED: 2}
    assert event.locked_until == until + timedelta(days=2)
    assert event.totals["sketch"].rows_blocked == 2
    kept = await world.rows("select feature_id from sketch_task where result like '%cdn.test%'")
    assert {row[0] for row in kept} == {first, second}
    assert third not in {row[0] for row in kept}
    assert await world.value("select count(*) from lethe.blocked_row where until is not null") == 2


async def test_a_legal_hold_has_no_date(with_catalog: MakeWorld, bucket: BucketFactory) -> None:
    world = await with_catalog(results=bucket(locked=True))
    await world.sketch(0)
    world.s3.put_object_legal_hold(
        Bucket=world.buckets["results"],
        Key=f"public/{SUBJECT}-0.png",
        LegalHold={"Status": "ON"},
    )
    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser()) == "blocked"
    event = (await world.said())[-1].event
    assert isinstance(event, Blocked)
    assert (event.reasons, event.locked_until) == ({BlockReason.OBJECT_LOCKED: 1}, None)
