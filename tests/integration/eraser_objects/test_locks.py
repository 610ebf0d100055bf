"""What becomes of a person whose objects are locked; on versitygw: moto tells no retention."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lethe_contracts.events import Blocked
from lethe_contracts.states import BlockReason
from lethe_eraser.storage import operations
from lethe_eraser.storage.events import Announcer
from lethe_outbox import Outbox
from lethe_sandbox.stack import S3Address
from tests.integration.eraser.world import (
    COUNTED,
    COUNTED_INDEX,
    NOTHING,
    PICTURE,
    SUBJECT,
    Eraser,
    World,
    put_in,
    to_the_end,
)
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


@pytest.fixture
async def held(with_catalog: MakeWorld, bucket: BucketFactory) -> World:
    """A world with a picture under a legal hold that goes with the last reference to it."""
    world = await with_catalog(plain=COUNTED, uploads=bucket(locked=True))
    await world.write(COUNTED_INDEX)
    world.put("uploads", PICTURE)
    hold(world, "ON")
    option = {"bucket": world.buckets["uploads"], "key": PICTURE}
    await world.sketch(0, option=option)
    await world.sketch(1, option={})
    await world.accept(world.requested())
    return world


def hold(world: World, status: Any) -> None:
    world.s3.put_object_legal_hold(
        Bucket=world.buckets["uploads"], Key=PICTURE, LegalHold={"Status": status}
    )


async def retry(world: World) -> None:
    async with world.engine.begin() as connection:
        job_id = await world.value("select job_id from lethe.job")
        await operations.retry(connection, Announcer(Outbox("lethe")), job_id)


async def ended(world: World, state: str) -> bool:
    """Whether the job ended so, and with the picture as that says."""
    event = (await world.said())[-1].event
    refused = isinstance(event, Blocked) and event.reasons == {BlockReason.OBJECT_LOCKED: 1}
    blocked = state == "blocked"
    return refused is blocked and (PICTURE in world.keys("uploads")) is blocked


async def test_a_refused_object_that_no_row_names_blocks_every_retry_until_it_is_gone(
    held: World,
) -> None:
    eraser = held.eraser()
    assert await to_the_end(held, eraser) == "blocked"
    assert await ended(held, "blocked")
    for _ in range(2):
        await retry(held)
        assert await to_the_end(held, eraser) == "blocked"
        assert await ended(held, "blocked")
    hold(held, "OFF")
    await retry(held)
    assert await to_the_end(held, eraser) == "verified"
    assert await ended(held, "verified")


def change_a_row(world: World, eraser: Eraser) -> None:
    """Let the product change a row between the delete and the mask, once."""
    delete, done = eraser.batches.delete, list[int]()

    async def changing(intent: Any) -> Any:
        deletion = await delete(intent)
        if intent.rows and not done:
            done.append(1)
            await world.write("update sketch_feature set status = 'seen' where option = '{}'")
        return deletion

    put_in(eraser.batches, "delete", changing)


def come_late(world: World, eraser: Eraser) -> None:
    """Let a request of the person come before the first scan."""
    scan, done = eraser.verification.scan, list[int]()

    async def late(*rest: Any) -> Any:
        if not done:
            done.append(1)
            await world.sketch(2, option={})
        return await scan(*rest)

    put_in(eraser.verification, "scan", late)


@pytest.mark.parametrize("another_round", [change_a_row, come_late])
@pytest.mark.parametrize("state", ["blocked", "verified"])
async def test_another_round_tries_a_refused_object_that_no_row_names_again(
    held: World, another_round: Any, state: str
) -> None:
    eraser = held.eraser()
    another_round(held, eraser)
    await eraser.until_idle()
    assert await held.state() == "running"
    assert await held.value("select round from lethe.job") == 2
    if state == "verified":
        hold(held, "OFF")
    assert await to_the_end(held, eraser) == state
    assert await ended(held, state)


@pytest.fixture
async def replaced(with_catalog: MakeWorld, bucket: BucketFactory) -> World:
    """A person of two requests; the result of the first is under a legal hold."""
    world = await with_catalog(results=bucket(locked=True))
    for number in range(2):
        await world.sketch(number)
    hold_result(world, "ON")
    await world.accept(world.requested())
    return world


RESULT = f"public/{SUBJECT}-0.png"


def hold_result(world: World, status: Any) -> None:
    world.s3.put_object_legal_hold(
        Bucket=world.buckets["results"], Key=RESULT, LegalHold={"Status": status}
    )


async def replace_result(world: World) -> None:
    """Let the product write another result into the row, as when a person asks for it again."""
    world.put("results", f"public/{SUBJECT}-again.png")
    await world.write(
        "update sketch_task set result = :new where result like :old",
        new=json.dumps({"url": f"https://cdn.test.example/{SUBJECT}-again.png"}),
        old=f"%{SUBJECT}-0.png%",
    )


async def blocked_by(world: World) -> dict[BlockReason, int]:
    event = (await world.said())[-1].event
    return dict(event.reasons) if isinstance(event, Blocked) else {}


async def test_a_refused_object_that_its_row_names_no_more_blocks_until_it_is_gone(
    replaced: World,
) -> None:
    world, eraser = replaced, replaced.eraser()
    assert await to_the_end(world, eraser) == "blocked"
    await replace_result(world)
    for _ in range(2):
        await retry(world)
        assert await to_the_end(world, eraser) == "blocked"
        assert await blocked_by(world) == {BlockReason.OBJECT_LOCKED: 1}
        assert world.keys("results") == {RESULT}
    hold_result(world, "OFF")
    await retry(world)
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING


@pytest.mark.parametrize("state", ["blocked", "verified"])
async def test_a_row_that_names_another_object_amid_the_job_does_not_leave_the_refused_one(
    replaced: World, state: str
) -> None:
    world, eraser = replaced, replaced.eraser()
    mask, done = eraser.batches.mask, list[int]()

    async def masked(*rest: Any) -> Any:
        if not done:
            done.append(1)
            # A row of the batch is left for the next round, so that there is one.
            await world.write("update sketch_feature set status = 'seen'")
            after = await mask(*rest)
            await replace_result(world)
            return after
        return await mask(*rest)

    put_in(eraser.batches, "mask", masked)
    await eraser.until_idle()
    assert await world.value("select round from lethe.job") == 2
    if state == "verified":
        hold_result(world, "OFF")
    assert await to_the_end(world, eraser) == state
    assert await blocked_by(world) == ({BlockReason.OBJECT_LOCKED: 1} if state == "blocked" else {})
    assert world.keys("results") == ({RESULT} if state == "blocked" else set())
