"""What spares S3 calls (full pages, what is believed of a bucket), and that it costs no object."""

from lethe_eraser.domain import ObjectRef
from lethe_eraser.execute.ahead import Ahead, by_type
from lethe_eraser.objects import Deletion
from lethe_eraser.storage.journal import Intent
from tests.integration.eraser.world import NOTHING, SUBJECT, World, put_in, to_the_end


async def test_types_of_a_kind_are_read_one_after_the_other(world: World) -> None:
    for number, request_type in enumerate(("a", "b", "c", "a", "b")):
        await world.client_row(request_type, number, subject=SUBJECT, source="client")
    sources = {source.name: source for source in world.catalog.client_tables}
    kinds = {"a": "rows", "b": "documents", "c": "rows"}
    ahead = Ahead(sources, SUBJECT, batch_rows=10, kind_of=lambda name: kinds[name])
    async with world.engine.connect() as connection:
        await ahead.begin(connection, {})
        found = by_type(await ahead.read(connection))
    assert [(name, sum(len(r.rows) for r in reads)) for name, reads in found] == [
        ("b", 2),
        ("a", 2),
        ("c", 1),
    ]


async def test_a_key_written_again_after_an_earlier_batch_deleted_it_goes_in_the_next_round(
    world: World,
) -> None:
    """The batch that names it again does not send it again; the verification finds it."""
    await world.sketch(1)
    await world.sketch(2)
    again = f"uploads/{SUBJECT}/1.png"
    await world.sketch(3, option={"bucket": world.buckets["uploads"], "key": again})
    eraser = world.eraser(batch_rows=1)
    real = eraser.batches.delete
    there: list[bool] = []

    async def delete(intent: Intent) -> Deletion:
        if intent.batch != 3:
            return await real(intent)
        there.append(again in world.keys("uploads"))
        world.put("uploads", again)
        deletion = await real(intent)
        there.append(again in world.keys("uploads"))
        return deletion

    put_in(eraser.batches, "delete", delete)
    await world.accept(world.requested())
    assert await to_the_end(world, eraser) == "verified"
    assert there == [False, True]
    assert await world.value("select round from lethe.job") == 2
    assert await world.left_of(SUBJECT) == NOTHING
    totals = (await world.said())[-1].event.totals
    assert totals["sketch"].objects_gone == 5


async def test_a_bucket_whose_versions_are_switched_on_amid_a_job_keeps_nothing(
    world: World,
) -> None:
    """A delete without a version leaves the data behind a marker; the verification looks anew."""
    await world.sketch(1)
    await world.sketch(2)
    eraser = world.eraser(batch_rows=1)
    real = eraser.batches.delete

    async def delete(intent: Intent) -> Deletion:
        if intent.batch == 2:
            world.s3.put_bucket_versioning(
                Bucket=world.buckets["uploads"], VersioningConfiguration={"Status": "Enabled"}
            )
        return await real(intent)

    put_in(eraser.batches, "delete", delete)
    # What the bucket was before is believed, as after an earlier person's job.
    assert not await world.store.remaining([ObjectRef(world.buckets["uploads"], "nobody's")])
    await world.accept(world.requested())
    assert await to_the_end(world, eraser) == "verified"
    assert await world.value("select round from lethe.job") == 2
    assert world.keys("uploads") == set()
