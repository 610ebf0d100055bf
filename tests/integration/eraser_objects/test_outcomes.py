"""What becomes of a person whose objects are locked, missing, tagged or copied."""

from typing import Any

import pytest

from lethe_contracts.events import Blocked, TypeTotals
from lethe_contracts.states import BlockReason
from lethe_eraser.storage.journal import Intent
from tests.integration.eraser.world import (
    NOTHING,
    SUBJECT,
    Eraser,
    Killed,
    World,
    put_in,
    to_the_end,
)
from tests.integration.eraser_objects.conftest import MakeWorld
from tests.support.factories import BucketFactory


async def totals(world: World) -> TypeTotals:
    return (await world.said())[-1].event.totals["sketch"]


async def once_more(world: World, eraser: Eraser) -> str:
    """Let a waiting job look again now."""
    await world.write("update lethe.job set retry_at = null")
    await eraser.until_idle()
    return await world.state()


COUNTED = ("{results}: {{}}", "{results}: {{count_missing: true}}")


async def people(world: World, count: int, *, missing: set[int]) -> None:
    for number in range(count):
        await world.sketch(number)
    for number in missing:
        world.s3.delete_object(
            Bucket=world.buckets["results"], Key=f"public/{SUBJECT}-{number}.png"
        )
    await world.accept(world.requested())


async def test_few_missing_objects_are_counted_however_the_batches_fall(
    with_catalog: MakeWorld,
) -> None:
    world = await with_catalog(COUNTED)
    # One of the first three is far more than 2 %; one of fifty is not.
    await people(world, 50, missing={0})
    assert await to_the_end(world, world.eraser()) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    assert await totals(world) == TypeTotals(
        feature_rows=50, task_rows=50, client_rows=50, objects_gone=99, objects_missing=1
    )
    assert await world.value("select round from lethe.job") == 2


async def test_a_mapping_that_finds_nothing_does_not_look_like_success(
    with_catalog: MakeWorld,
) -> None:
    world = await with_catalog(COUNTED, ("origin_path: /public", "origin_path: /pulbic"))
    await people(world, 7, missing=set())
    before = await world.rows("select result from sketch_task order by id")
    assert await to_the_end(world, world.eraser()) == "blocked"
    event = (await world.said())[-1].event
    assert isinstance(event, Blocked)
    assert event.reasons == {BlockReason.TOO_MANY_MISSING: 7}
    assert (await totals(world)).objects_missing == 7
    assert (await totals(world)).objects_gone == 7
    assert await world.rows("select result from sketch_task order by id") == before
    assert len(world.keys("results")) == 7


async def test_two_of_a_hundred_pass_and_three_do_not(with_catalog: MakeWorld) -> None:
    for missing, state in (({0, 40}, "verified"), ({0, 40, 41}, "blocked")):
        world = await with_catalog(COUNTED)
        await people(world, 100, missing=missing)
        assert await to_the_end(world, world.eraser(batch_rows=50)) == state


async def test_after_a_crash_the_journal_says_what_was_there(with_catalog: MakeWorld) -> None:
    world = await with_catalog(COUNTED)
    await people(world, 60, missing={3})
    dying = world.eraser(batch_rows=60)
    real = dying.batches.delete

    async def delete_and_die(intent: Intent) -> Any:
        await real(intent)
        raise Killed

    put_in(dying.batches, "delete", delete_and_die)
    with pytest.raises(Killed):
        await dying.until_idle()
    # Asked now, S3 would say that all of them were missing.
    assert len(world.keys("results")) == 0
    assert await to_the_end(world, world.eraser(batch_rows=60)) == "verified"
    assert await totals(world) == TypeTotals(
        feature_rows=60, task_rows=60, client_rows=60, objects_gone=119, objects_missing=1
    )


TAGGED = ("{results}: {{}}", "{results}: {{mode: tag}}")


async def test_a_tagged_object_keeps_the_job_open_until_it_is_gone(
    with_catalog: MakeWorld,
) -> None:
    world = await with_catalog(TAGGED)
    for number in range(2):
        await world.sketch(number)
    await world.accept(world.requested())
    eraser = world.eraser()
    await eraser.until_idle()
    assert await world.state() == "erased"
    assert await world.value("select retry_at > now() + interval '50 minutes' from lethe.job")
    results = world.buckets["results"]
    names = sorted(world.keys("results"))
    assert len(names) == 2
    for name in names:
        tags = world.s3.get_object_tagging(Bucket=results, Key=name)["TagSet"]
        assert tags == [{"Key": "lethe-erase", "Value": "yes"}]
    # The rows are done with: nothing but the eraser can name the objects any more.
    assert (await world.left_of(SUBJECT))["result"] == 0
    assert await totals(world) == TypeTotals(
        feature_rows=2, task_rows=2, objects_gone=2, objects_scheduled=2
    )

    # Somebody writes one anew, without the tag: no rule would ever remove it.
    world.s3.put_object(Bucket=results, Key=names[0], Body=b"again")
    assert await once_more(world, eraser) == "erased"
    tags = world.s3.get_object_tagging(Bucket=results, Key=names[0])["TagSet"]
    assert tags == [{"Key": "lethe-erase", "Value": "yes"}]

    world.s3.delete_object(Bucket=results, Key=names[0])
    assert await once_more(world, eraser) == "erased"
    world.s3.delete_object(Bucket=results, Key=names[1])
    assert await once_more(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    assert await totals(world) == TypeTotals(
        feature_rows=2, task_rows=2, client_rows=2, objects_gone=2, objects_scheduled=2
    )


async def test_copies_in_another_bucket_go_and_are_verified(
    with_catalog: MakeWorld, bucket: BucketFactory
) -> None:
    copies = bucket(versioned=True)
    world = await with_catalog(
        ("{results}: {{}}", "{results}: {{replicas: [{copies}]}}, {copies}: {{}}"), copies=copies
    )
    await world.sketch(0)
    key = f"public/{SUBJECT}-0.png"
    for _ in range(2):
        world.put("copies", key)
    world.put("copies", f"{key}.bak")
    eraser = world.eraser()
    real = eraser.batches.mask

    async def replicated_late(*args: Any) -> Any:
        world.put("copies", key)
        put_in(eraser.batches, "mask", real)
        return await real(*args)

    put_in(eraser.batches, "mask", replicated_late)
    await world.accept(world.requested())
    assert await to_the_end(world, eraser) == "verified"
    assert world.keys("copies") == {f"{key}.bak"}
    assert await world.value("select round from lethe.job") == 2
    assert (await totals(world)).objects_gone == 2


async def test_an_object_that_is_named_by_its_copy_goes_with_all_of_them(
    with_catalog: MakeWorld, bucket: BucketFactory
) -> None:
    """A product hands out the address that is nearest."""
    world = await with_catalog(
        ("{results}: {{}}", "{results}: {{replicas: [{copies}]}}, {copies}: {{}}"),
        ("hosts:", "hosts:\n  near.test.example: {{bucket: {copies}, origin_path: /public}}"),
        copies=bucket(),
    )
    kept = "public/of-another.png"
    for where in ("results", "copies"):
        for number in range(2):
            world.put(where, f"public/{SUBJECT}-{number}.png")
        world.put(where, kept)
    await world.sketch(0, url=f"https://near.test.example/{SUBJECT}-0.png")
    url = f"https://s3.amazonaws.com/{world.buckets['copies']}/public/{SUBJECT}-1.png"
    await world.sketch(1, url=url)
    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser()) == "verified"
    assert (world.keys("results"), world.keys("copies")) == ({kept}, {kept})
    assert (await totals(world)).objects_gone == 4


async def test_versions_that_are_named_one_by_one_are_counted_one_by_one(
    with_catalog: MakeWorld, bucket: BucketFactory
) -> None:
    world = await with_catalog(
        ("url: url, ownership", "url: url, only_version: true, ownership"),
        results=bucket(versioned=True),
    )
    name, key = world.buckets["results"], "public/result.png"
    versions = [
        world.s3.put_object(Bucket=name, Key=key, Body=bytes([number]))["VersionId"]
        for number in range(3)
    ]
    for number, version in enumerate(versions[:2]):
        await world.sketch(number, url=f"https://{name}.s3.amazonaws.com/{key}?versionId={version}")
    await world.accept(world.requested())
    assert await to_the_end(world, world.eraser()) == "verified"
    listed = world.s3.list_object_versions(Bucket=name)["Versions"]
    assert [one["VersionId"] for one in listed] == versions[2:]
    # The two, and an upload of each.
    assert (await totals(world)).objects_gone == 4
