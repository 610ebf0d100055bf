"""Nobody is erased while a hold may be stuck on its way, wherever that is."""

from datetime import timedelta
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from lethe_contracts.events import Held, Watermark
from lethe_contracts.topics import PARTITIONS, REQUESTS
from lethe_eraser.storage import control
from lethe_eraser.storage.control import SetAside
from lethe_outbox import PoisonError, bucket_of
from tests.integration.eraser.world import (
    CONTROL_FRESH,
    NOTHING,
    REF,
    SUBJECT,
    Eraser,
    World,
    put_in,
    to_the_end,
    until_begun,
)

BUCKET = bucket_of(REF)
TOO_OLD = CONTROL_FRESH + timedelta(seconds=1)


def key_in_partition(partition: int) -> str:
    keys = (f"watermark-{number}" for number in range(10_000))
    return next(key for key in keys if bucket_of(key) % PARTITIONS == partition)


def aside(bucket: int | None, *, partition: int = BUCKET % PARTITIONS, offset: int = 1,
          event_id: UUID | None = None) -> SetAside:  # fmt: skip
    return SetAside(REQUESTS, partition, offset, bucket, event_id, "invalid_event")


async def set_aside(world: World, record: SetAside) -> None:
    async with world.engine.begin() as connection:
        await control.set_aside(connection, record)


async def release(world: World, record: SetAside) -> bool:
    async with world.engine.begin() as connection:
        place = (record.topic, record.partition, record.offset)
        return await control.release(connection, place, by="an operator", note="not a hold")


async def untouched(world: World) -> bool:
    left = await world.left_of(SUBJECT)
    return left["client"] == 1 and left["objects"] == 2


async def idle_beside_the_accepted(world: World) -> Eraser:
    """Give an eraser that found nothing it may do, and left the person as they were."""
    eraser = world.eraser()
    await eraser.until_idle()
    assert await world.state() == "accepted"
    assert await untouched(world)
    return eraser


async def test_without_a_watermark_nobody_is_erased(world: World) -> None:
    await world.write("truncate lethe.watermark")
    await world.sketch(1)
    await world.accept(world.requested())
    eraser = await idle_beside_the_accepted(world)
    await world.settled()
    assert await to_the_end(world, eraser) == "verified"


@pytest.mark.parametrize("ago", [TOO_OLD, timedelta(days=1)])
async def test_under_an_old_watermark_nobody_is_erased_and_a_fresh_one_lets_go(
    world: World, ago: timedelta
) -> None:
    await world.settled(ago=ago)
    await world.sketch(1)
    await world.accept(world.requested())
    eraser = await idle_beside_the_accepted(world)
    async with world.engine.connect() as connection:
        assert await control.count_stale(connection, CONTROL_FRESH) == 1
    await world.settled()
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING


async def test_a_watermark_of_another_bucket_says_nothing(world: World) -> None:
    await world.settled(ago=TOO_OLD)
    await world.write(
        "update lethe.watermark set settled_until = now() where bucket <> :mine", mine=BUCKET
    )
    await world.sketch(1)
    await world.accept(world.requested())
    await world.eraser().until_idle()
    assert await world.state() == "accepted"


async def test_a_watermark_that_grows_old_stops_the_next_batch(world: World) -> None:
    for number in range(3):
        await world.sketch(number)
    await world.accept(world.requested())
    eraser = world.eraser(batch_rows=1)
    after_one_batch(eraser, world)
    await eraser.until_idle()
    assert await world.state() == "running"
    # The second batch was under way, and finished.
    assert (await world.left_of(SUBJECT))["result"] == 1
    await world.settled()
    assert await to_the_end(world, world.eraser()) == "verified"


def after_one_batch(eraser: Eraser, world: World) -> None:
    real = eraser.batches.mask

    async def mask(*args: object) -> object:
        after = await real(*args)  # type: ignore[arg-type] # passed on as they came
        await until_begun(world, 2)
        await world.settled(ago=TOO_OLD)
        return after

    put_in(eraser.batches, "mask", mask)


@pytest.mark.parametrize("of_bucket", [BUCKET, None])
async def test_a_record_in_quarantine_stops_its_bucket_until_somebody_releases_it(
    world: World, of_bucket: int | None
) -> None:
    record = aside(of_bucket)
    await world.sketch(1)
    await world.accept(world.requested())
    await set_aside(world, record)
    await set_aside(world, record)
    eraser = await idle_beside_the_accepted(world)

    assert await release(world, record)
    assert not await release(world, record)
    assert await to_the_end(world, eraser) == "verified"


async def test_a_record_in_quarantine_stops_no_other_bucket(world: World) -> None:
    await set_aside(world, aside((BUCKET + PARTITIONS) % 256))
    await set_aside(world, aside(None, partition=(BUCKET + 1) % PARTITIONS, offset=2))
    await world.sketch(1)
    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser()) == "verified"


async def test_a_poison_hold_stops_its_person_until_it_is_replayed_and_read(world: World) -> None:
    """What the consumer does: it sets the record aside, and goes on with the next one."""
    await world.sketch(1)
    hold = world.record(Held(hold_id=uuid7()))
    await set_aside(world, aside(BUCKET, event_id=hold.event_id))
    await world.accept(world.requested())
    eraser = world.eraser()
    await eraser.until_idle()
    assert await world.state() == "accepted"

    await world.accept_records(hold)
    async with world.engine.connect() as connection:
        assert await control.quarantined(connection) == []
    await eraser.until_idle()
    assert await world.state() == "held"
    assert await untouched(world)


async def test_watermarks_are_kept_by_bucket_and_only_grow(world: World) -> None:
    now = world.clock.now
    await world.write("truncate lethe.watermark")
    key = key_in_partition(7)
    await world.accept(
        Watermark(settled_until={7: now, 23: now - timedelta(minutes=1)}),
        Watermark(settled_until={7: now - timedelta(seconds=30)}),
        ref=key,
    )
    await world.accept(Watermark(settled_until={7: now - timedelta(minutes=5)}), ref=key)
    rows = await world.rows("select bucket, settled_until from lethe.watermark order by 1")
    assert [tuple(row) for row in rows] == [(7, now), (23, now - timedelta(minutes=1))]


async def test_a_watermark_of_the_future_is_believed_until_now_and_no_longer(world: World) -> None:
    """The clock of intake's database was ahead: what is stuck would look settled until then."""
    await world.write("truncate lethe.watermark")
    ahead = world.clock.now + timedelta(hours=1)
    await world.accept(Watermark(settled_until={7: ahead}), ref=key_in_partition(7))
    assert await world.value("select settled_until <= now() from lethe.watermark")


async def test_a_watermark_kept_under_a_clock_that_was_set_back_is_not_believed(
    world: World,
) -> None:
    """The product's own clock was ahead, and let it in: for an hour everything would look fresh."""
    await world.settled(ago=-timedelta(hours=1))
    await world.sketch(1)
    await world.accept(world.requested())
    eraser = await idle_beside_the_accepted(world)
    now = await world.value("select now()")
    key = key_in_partition(BUCKET % PARTITIONS)
    await world.accept(Watermark(settled_until={BUCKET: now}), ref=key)
    query = "select settled_until from lethe.watermark where bucket = :b"
    assert await world.value(query, b=BUCKET) == now
    assert await to_the_end(world, eraser) == "verified"


async def test_a_watermark_speaks_for_its_own_partition_only(world: World) -> None:
    record = world.record(
        Watermark(settled_until={7: world.clock.now, 8: world.clock.now}), ref=key_in_partition(7)
    )
    with pytest.raises(PoisonError, match="invalid_event"):
        await world.accept_records(record)
