"""Batches that span types and tables, two of them under way at once, in pages they share."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import event

from lethe_contracts.events import BatchErased, TypeTotals
from lethe_eraser.objects import ObjectStore, S3Options
from lethe_eraser.objects.calls import S3Calls
from lethe_eraser.objects.deleting import Item, delete_page
from lethe_eraser.objects.pace import Pace
from lethe_eraser.storage.journal import Intent, Journal
from lethe_eraser.storage.progress import OBJECTS_ONLY, Page, Stretch, advance
from lethe_sandbox.stack import S3Address
from tests.integration.eraser.world import (
    NOTHING,
    SUBJECT,
    Eraser,
    Killed,
    World,
    make_catalog,
    put_in,
    to_the_end,
    until_begun,
)

Step = Callable[..., Awaitable[Any]]


class Stages:
    """Tells when which step of which batch began and ended, and stops those that shall wait."""

    def __init__(self, eraser: Eraser) -> None:
        self.ended: list[tuple[str, int]] = []
        self.plans: list[Intent] = []
        self._reads = 0
        self._read: dict[int, asyncio.Event] = {}
        self._before: dict[int, Callable[[], object]] = {}
        self._collect = eraser.batches.collect
        put_in(eraser.batches, "collect", self._reading)
        self._waits: dict[tuple[str, int], asyncio.Event] = {}
        self._reached: dict[tuple[str, int], asyncio.Event] = {}
        for name in ("delete", "mask"):
            put_in(eraser.batches, name, self._watched(name, getattr(eraser.batches, name)))

    def hold_up(self, step: str, batch: int) -> asyncio.Event:
        """Let a step wait until the event is set."""
        return self._waits.setdefault((step, batch), asyncio.Event())

    async def reached(self, step: str, batch: int) -> None:
        """Wait until a step begins."""
        await asyncio.wait_for(
            self._reached.setdefault((step, batch), asyncio.Event()).wait(), timeout=30
        )

    def before_reading(self, number: int, do: Callable[[], object]) -> None:
        """Do something before so many batches are read, when those before it are not masked."""
        self._before[number] = do

    async def read(self, number: int) -> None:
        """Wait until so many batches are read."""
        await asyncio.wait_for(self._read.setdefault(number, asyncio.Event()).wait(), timeout=30)

    async def _reading(self, *args: Any) -> Intent:
        self._reads += 1
        self._before.get(self._reads, _nothing)()
        self.plans.append(await self._collect(*args))
        self._read.setdefault(len(self.plans), asyncio.Event()).set()
        return self.plans[-1]

    def _watched(self, name: str, step: Step) -> Step:
        async def run(*args: Any) -> Any:
            intent = next(one for one in args if isinstance(one, Intent))
            here = (name, intent.batch)
            self._reached.setdefault(here, asyncio.Event()).set()
            if here in self._waits:
                await self._waits[here].wait()
            done = await step(*args)
            self.ended.append(here)
            return done

        return run


def _nothing() -> None:
    """Do it."""


async def sketched(world: World, sketches: int) -> tuple[Eraser, Stages]:
    """Let a person with so many sketches be erased by batches of one client row."""
    for number in range(sketches):
        await world.sketch(number)
    await world.accept(world.requested())
    eraser = world.eraser(batch_rows=1)
    return eraser, Stages(eraser)


async def test_a_batch_spans_types_and_tables(world: World) -> None:
    for number in range(3):
        await world.sketch(number, source="client" if number else "client_old")
    await world.document(1)
    await world.accept(world.requested())
    eraser = world.eraser(batch_rows=50)
    await eraser.until_idle()
    assert await world.state() == "verified"
    assert await world.left_of(SUBJECT) == NOTHING
    [batch] = [one.event for one in await world.said() if isinstance(one.event, BatchErased)]
    assert batch.batch == 1
    # The type in which the batch ends: what names other buckets comes after all others.
    assert batch.request_type == "document"
    assert batch.totals == {
        "sketch": TypeTotals(feature_rows=3, task_rows=3, objects_gone=6),
        "document": TypeTotals(feature_rows=1, objects_gone=3),
    }


async def test_rows_are_masked_while_the_next_batch_is_deleted(world: World) -> None:
    eraser, stages = await sketched(world, 4)
    mask = stages.hold_up("mask", 1)
    running = asyncio.create_task(eraser.until_idle())
    await stages.reached("mask", 1)
    await stages.reached("delete", 2)
    mask.set()
    await running
    assert await world.state() == "verified"
    assert [batch for step, batch in stages.ended if step == "mask"] == [1, 2, 3, 4]


async def test_no_third_batch_begins_while_two_are_not_masked(world: World) -> None:
    eraser, stages = await sketched(world, 4)
    mask = stages.hold_up("mask", 1)
    running = asyncio.create_task(eraser.until_idle())
    await stages.read(3)
    # The third is found, and its intent waits: it would be the third to finish after a crash.
    await stages.reached("delete", 2)
    assert await world.value("select batches from lethe.job") == 2
    assert await world.value("select count(*) from lethe.journal where not masked") == 2
    mask.set()
    await running
    assert await world.left_of(SUBJECT) == NOTHING


async def test_masks_come_in_the_order_of_batches(world: World) -> None:
    eraser, stages = await sketched(world, 3)
    delete = stages.hold_up("delete", 1)
    running = asyncio.create_task(eraser.until_idle())
    await stages.reached("delete", 2)
    assert (await world.left_of(SUBJECT))["result"] == 3
    delete.set()
    await running
    said = [one.event.batch for one in await world.said() if isinstance(one.event, BatchErased)]
    assert said == [1, 2, 3]
    assert [batch for step, batch in stages.ended if step == "mask"] == [1, 2, 3]


async def test_killed_with_two_batches_under_way_both_are_finished_first(world: World) -> None:
    for number in range(5):
        await world.sketch(number)
    await world.accept(world.requested())
    dying = world.eraser(batch_rows=1)
    mask = dying.batches.mask

    async def killed(job: Any, intent: Intent, deletion: Any) -> Any:
        if intent.batch == 2:
            await until_begun(world, 3)
            raise Killed
        return await mask(job, intent, deletion)

    put_in(dying.batches, "mask", killed)
    with pytest.raises(Killed):
        await dying.until_idle()
    async with world.engine.connect() as connection:
        job_id = await world.value("select job_id from lethe.job")
        pending = await Journal(world.cipher).pending(connection, job_id)
    assert [intent.batch for intent in pending] == [2, 3]

    eraser = world.eraser(batch_rows=1)
    stages = Stages(eraser)
    assert await to_the_end(world, eraser) == "verified"
    assert [batch for step, batch in stages.ended if step == "mask"] == [2, 3, 4, 5]
    assert await world.left_of(SUBJECT) == NOTHING
    assert (await world.said())[-1].event.totals["sketch"] == TypeTotals(
        feature_rows=5, task_rows=5, client_rows=5, objects_gone=10
    )


async def test_a_request_of_two_client_rows_is_of_one_batch(world: World) -> None:
    """The second is read while the first one's rows are not masked, and waits for no round."""
    feature = await world.sketch(1)
    await world.client_row("sketch", feature, source="client_old")
    await world.sketch(2, source="client_old")
    await world.accept(world.requested())
    eraser = world.eraser(batch_rows=1)
    stages = Stages(eraser)
    mask = stages.hold_up("mask", 1)
    running = asyncio.create_task(eraser.until_idle())
    await stages.read(2)
    mask.set()
    await running
    assert await world.state() == "verified"
    assert await world.value("select round from lethe.job") == 1
    assert [len(plan.rows) for plan in stages.plans] == [2, 2]


async def test_an_error_in_the_next_batch_does_not_break_the_one_before(world: World) -> None:
    eraser, stages = await sketched(world, 3)
    delete = stages.hold_up("delete", 1)
    failed = asyncio.Event()

    def breaks() -> None:
        failed.set()
        raise KeyError

    stages.before_reading(2, breaks)
    running = asyncio.create_task(eraser.until_idle())
    await asyncio.wait_for(failed.wait(), timeout=30)
    delete.set()
    await running
    assert ("mask", 1) in stages.ended
    assert (await world.left_of(SUBJECT))["result"] == 2
    assert await world.value("select attempts from lethe.job") == 1
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING


async def test_a_manifest_that_the_batch_before_deleted_is_not_missed(world: World) -> None:
    """Two rows name one manifest, and the second is read when it is gone and nothing is masked."""
    await world.document(1)
    second = await world.write(
        "insert into document (manifest_path, title) select manifest_path, 'copy' from document"
        " returning id"
    )
    await world.client_row("document", second)
    await world.accept(world.requested())
    eraser = world.eraser(batch_rows=1)
    stages = Stages(eraser)
    bucket, manifest = world.buckets["documents"], f"manifests/{SUBJECT}-1.json"

    def delete() -> None:
        versions = world.s3.list_object_versions(Bucket=bucket, Prefix=manifest)["Versions"]
        for version in versions:
            world.s3.delete_object(Bucket=bucket, Key=manifest, VersionId=version["VersionId"])

    stages.before_reading(2, delete)
    mask = stages.hold_up("mask", 1)
    running = asyncio.create_task(eraser.until_idle())
    await until_begun(world, 2)
    mask.set()
    await running
    assert await world.state() == "verified"
    assert await world.left_of(SUBJECT) == NOTHING


async def test_an_object_that_the_batch_before_deleted_was_not_missing(
    world: World, tmp_path: Path
) -> None:
    results = world.buckets["results"]
    counted = {f"{results}: {{}}": f"{results}: {{count_missing: true}}"}
    world.catalog = make_catalog(tmp_path, world.buckets, counted)
    await world.sketch(1)
    await world.sketch(2, url=f"https://cdn.test.example/{SUBJECT}-1.png")
    await world.accept(world.requested())
    store = ObjectStore(world.store._options, world.catalog.buckets, wait_seconds=0.01)
    async with store:
        eraser = world.eraser(batch_rows=1, objects=store)
        stages = Stages(eraser)
        mask = stages.hold_up("mask", 1)
        key = f"public/{SUBJECT}-1.png"
        stages.before_reading(2, lambda: world.s3.delete_object(Bucket=results, Key=key))
        running = asyncio.create_task(eraser.until_idle())
        await until_begun(world, 2)
        mask.set()
        await running
    assert await world.state() == "verified"
    assert await world.value("select round from lethe.job") == 1
    assert (await world.said())[-1].event.totals["sketch"] == TypeTotals(
        feature_rows=2, task_rows=2, client_rows=2, objects_gone=3
    )


async def test_batches_share_pages(
    world: World, s3: S3Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        await world.sketch(number)
    await world.accept(world.requested())
    pages: list[int] = []

    def counted(calls: S3Calls, pace: Pace, bucket: str, items: list[Item]) -> dict[Item, str]:
        pages.append(len(items))
        return delete_page(calls, pace, bucket, items)

    monkeypatch.setattr("lethe_eraser.objects.removing.delete_page", counted)
    options = S3Options(
        region=s3.region,
        endpoint_url=s3.endpoint,
        access_key_id=s3.access_key_id,
        secret_access_key=SecretStr(s3.secret_access_key),
        page_keys=4,
    )
    async with ObjectStore(options, world.catalog.buckets) as store:
        await world.eraser(batch_rows=3, objects=store).until_idle()
    assert await world.state() == "verified"
    # Three keys of each bucket per batch, and not one page that is not full.
    assert pages == [4] * 6


async def test_statements_do_not_grow_with_the_batch(world: World) -> None:
    counts = []
    for size in (2, 30):
        for number in range(size):
            await world.sketch(number + 100 * size)
            if number % 2:
                await world.document(number + 100 * size)
        statements: list[str] = []

        def note(
            _c: Any, _cursor: Any, statement: str, *_: Any, to: list[str] = statements
        ) -> None:
            to.append(statement)

        eraser = world.eraser(batch_rows=500)
        real = eraser.rounds._end_round

        async def end(job: Any, real: Step = real, note: Any = note) -> Any:
            event.remove(world.engine.sync_engine, "before_cursor_execute", note)
            return await real(job)

        put_in(eraser.rounds, "_end_round", end)
        await world.accept(world.requested())
        event.listen(world.engine.sync_engine, "before_cursor_execute", note)
        await eraser.until_idle()
        assert await world.state() == "verified"
        counts.append(len(statements))
    assert counts[0] == counts[1]


async def test_progress_is_noted_by_one_text_however_many_stretches(world: World) -> None:
    texts: set[str] = set()

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        texts.add(statement)

    stretches = [
        Stretch(Page("sketch", "client", None), "[1]", done=True),
        Stretch(Page("sketch", "client_old", None), None, done=False),
        Stretch(Page("document", "client", None), "[2]", done=False),
        Stretch(Page("", OBJECTS_ONLY, None), None, done=True),
    ]
    job_id = uuid4()
    event.listen(world.engine.sync_engine, "before_cursor_execute", note)
    async with world.engine.begin() as connection:
        await advance(connection, job_id, 2, stretches[:1], {"sketch": 4})
        await advance(connection, job_id, 2, stretches, {"sketch": 3, "document": 1})
    event.remove(world.engine.sync_engine, "before_cursor_execute", note)
    assert len(texts) == 1
    rows = await world.rows(
        "select request_type, source, round, after_key, done, deferred from lethe.progress"
        " where job_id = :job_id order by 1, 2",
        job_id=job_id,
    )
    assert [tuple(row) for row in rows] == [
        ("document", "client", 2, "[2]", False, 1),
        ("sketch", "client", 2, "[1]", True, 7),
        ("sketch", "client_old", 2, None, False, 0),
    ]
