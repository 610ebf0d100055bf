"""One person from request to verified, on a real database and a real S3."""

from itertools import pairwise

from lethe_contracts.events import Accepted, Blocked, TypeTotals, Verified
from lethe_contracts.states import BlockReason
from lethe_eraser.objects import Deletion
from lethe_eraser.storage.journal import Intent
from tests.integration.eraser.world import NOTHING, OTHER, SUBJECT, World, put_in


async def test_a_person_is_erased_and_nobody_else(world: World) -> None:
    for number in range(7):
        await world.sketch(number, source="client" if number % 2 else "client_old")
    await world.document(1, files=3)
    await world.document(2, files=0)
    others = [await world.sketch(number, subject=OTHER) for number in range(3)]
    await world.document(1, subject=OTHER)
    before = await world.product()
    await world.accept(world.requested())
    await world.eraser().until_idle()

    assert await world.left_of(SUBJECT) == NOTHING
    assert await world.state() == "verified"
    left = await world.left_of(OTHER)
    assert left == {
        "client": 4, "client_old": 0, "option": 3, "result": 3, "manifest": 1, "objects": 9,
    }  # fmt: skip
    after = await world.product()
    for table, rows in after.items():
        assert [row.id for row in rows] == [row.id for row in before[table]]
    for was, now in zip(before["sketch_feature"], after["sketch_feature"], strict=True):
        assert (now.status, now.gpu, now.created_at) == (was.status, was.gpu, was.created_at)
        if now.id in others:
            assert now == was
        else:
            assert (now.option, now.prompt) == ({}, None)
    for was, now in zip(before["client"], after["client"], strict=True):
        assert now[2:] == was[2:]


async def test_the_events_tell_the_whole_truth(world: World) -> None:
    for number in range(4):
        await world.sketch(number)
    await world.sketch(4, option={"bucket": world.buckets["uploads"], "key": "templates/a.png"})
    await world.document(1, files=3)
    request = world.requested()
    await world.accept(request)
    await world.eraser(batch_rows=2).until_idle()

    said = await world.said()
    assert [one.event.name for one in said] == [
        "accepted", "started", "batch_erased", "batch_erased", "batch_erased", "erased", "verified",
    ]  # fmt: skip
    assert isinstance(said[0].event, Accepted)
    assert [one.sequence for one in said] == list(range(1, 8))
    assert {one.event.request_ids for one in said} == {(request.request_id,)}
    assert {one.aggregate for one in said} == {said[0].event.job_id}
    for earlier, later in pairwise(said):
        for request_type, totals in earlier.event.totals.items():
            grown = later.event.totals[request_type].model_dump()
            assert all(grown[name] >= count for name, count in totals.model_dump().items())
    assert said[-1].event.totals == {
        "sketch": TypeTotals(
            feature_rows=5, task_rows=5, client_rows=5, objects_gone=9, objects_kept=1
        ),
        "document": TypeTotals(feature_rows=1, client_rows=1, objects_gone=4),
    }


async def test_nothing_of_the_person_stays_with_the_eraser(world: World) -> None:
    await world.sketch(1)
    await world.document(1)
    await world.accept(world.requested())
    await world.eraser().until_idle()
    assert await world.value("select subject_ciphertext from lethe.job") is None
    for table in ("journal", "progress", "counted_object", "blocked_row"):
        assert await world.value(f"select count(*) from lethe.{table}") == 0  # noqa: S608 - our own names
    dumped = str(
        [
            await world.rows(f"select t::text from lethe.{table} t")  # noqa: S608 - our own names
            for table in ("job", "job_request", "outbox", "inbox", "hold", "tombstone")
        ]
    ) + str([one.event.model_dump_json() for one in await world.said()])
    assert SUBJECT not in dumped
    assert "cdn.test" not in dumped
    assert "uploads/" not in dumped


async def test_the_journal_of_a_running_job_is_ciphertext(world: World) -> None:
    await world.sketch(1)
    await world.accept(world.requested())
    eraser = world.eraser()
    real = eraser.batches.delete
    seen: list[bytes] = []

    async def look(intent: Intent) -> Deletion:
        seen.append(await world.value("select intent from lethe.journal"))
        return await real(intent)

    put_in(eraser.batches, "delete", look)
    await eraser.until_idle()
    [intent] = seen
    assert SUBJECT.encode() not in bytes(intent)
    assert bytes(intent).startswith(b"1.")


async def test_what_cannot_be_erased_is_blocked_by_name_and_can_be_found_again(
    world: World,
) -> None:
    good = await world.sketch(1)
    strange = await world.sketch(2, url="https://old-images.test.example/a.png")
    await world.client_row("video-upscale", 77)
    await world.client_row("sketch", None)
    await world.client_row("sketch", 999_999)
    missing = await world.document(3)
    for key in world.keys("documents"):
        if key.startswith("manifests/"):
            for version in world.s3.list_object_versions(
                Bucket=world.buckets["documents"], Prefix=key
            )["Versions"]:
                world.s3.delete_object(
                    Bucket=world.buckets["documents"], Key=key, VersionId=version["VersionId"]
                )
    await world.accept(world.requested())
    await world.eraser().until_idle()

    assert await world.state() == "blocked"
    event = (await world.said())[-1].event
    assert isinstance(event, Blocked)
    assert event.reasons == {
        BlockReason.UNRESOLVED_REFERENCE: 1,
        BlockReason.UNKNOWN_TYPE: 1,
        BlockReason.MANIFEST_MISSING: 1,
    }
    assert event.totals["sketch"] == TypeTotals(
        feature_rows=2, task_rows=1, client_rows=3, objects_gone=3, rows_blocked=1
    )
    rows = await world.rows(
        "select request_type, request_id from client where client_key = :s order by 1", s=SUBJECT
    )
    assert [tuple(row) for row in rows] == [
        ("document", missing),
        ("sketch", strange),
        ("video-upscale", 77),
    ]
    # The feature row of the blocked task is erased; the task keeps what it names.
    assert await world.value("select prompt from sketch_feature where id = :i", i=strange) is None
    assert "old-images" in await world.value(
        "select result from sketch_task where feature_id = :i", i=strange
    )
    assert await world.value("select result from sketch_task where feature_id = :i", i=good) == "{}"
    assert await world.value("select count(*) from lethe.journal") == 1
    assert await world.value("select subject_ciphertext from lethe.job") is not None


async def test_a_person_nobody_knows_is_verified_at_once(world: World) -> None:
    await world.accept(world.requested())
    await world.eraser().until_idle()
    last = (await world.said())[-1].event
    assert isinstance(last, Verified)
    assert last.totals == {}


async def test_an_object_named_twice_is_counted_once(world: World) -> None:
    await world.sketch(1)
    key = f"uploads/{SUBJECT}/1.png"
    for number in (2, 3, 4):
        await world.sketch(number, option={"bucket": world.buckets["uploads"], "key": key})
    await world.accept(world.requested())
    await world.eraser(batch_rows=1).until_idle()
    assert (await world.said())[-1].event.totals["sketch"].objects_gone == 5
