"""S3 or the database goes away in the middle and comes back; a defect is given up in the end."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from lethe_contracts.events import Failed
from lethe_eraser.domain import MAX_ATTEMPTS, ObjectRef
from lethe_eraser.objects import (
    Content,
    Deletion,
    Held,
    ObjectStore,
    ObjectStoreUnavailableError,
)
from tests.integration.eraser.world import (
    NOTHING,
    OTHER,
    SUBJECT,
    World,
    put_in,
    to_the_end,
    until_state,
)
from tests.support.waiting import until


class FlakyStore:
    """A store of which some calls fail."""

    def __init__(self, store: ObjectStore, fail: set[int]) -> None:
        self._store = store
        self._fail = fail
        self.calls = 0

    async def delete(self, refs: Iterable[ObjectRef], held: Held | None = None) -> Deletion:
        self.calls += 1
        if self.calls in self._fail:
            raise ObjectStoreUnavailableError("EndpointConnectionError")
        return await self._store.delete(refs, held)

    async def missing(self, refs: Iterable[ObjectRef]) -> frozenset[ObjectRef]:
        return await self._store.missing(refs)

    def look_anew(self) -> None:
        self._store.look_anew()

    async def remaining(self, refs: Iterable[ObjectRef]) -> frozenset[ObjectRef]:
        return await self._store.remaining(refs)

    async def tags(self, refs: Iterable[ObjectRef]) -> Mapping[ObjectRef, Mapping[str, str] | None]:
        return await self._store.tags(refs)

    async def versions(self, refs: Iterable[ObjectRef]) -> Mapping[ObjectRef, Sequence[ObjectRef]]:
        return await self._store.versions(refs)

    def stream(self, ref: ObjectRef, limit_bytes: int) -> AbstractAsyncContextManager[Content]:
        return self._store.stream(ref, limit_bytes)

    async def read(self, ref: ObjectRef, limit_bytes: int) -> bytes:
        return await self._store.read(ref, limit_bytes)


async def test_s3_away_is_waited_for_and_costs_no_attempt(world: World) -> None:
    for number in range(4):
        await world.sketch(number)
    await world.accept(world.requested())
    store = FlakyStore(world.store, {2})
    eraser = world.eraser(batch_rows=2, objects=store)
    stop = asyncio.Event()
    running = asyncio.create_task(eraser.executor.run(stop))
    await until(lambda: eraser.readiness.report().dependencies["s3"].status == "away")
    await until_state(world, "verified")
    stop.set()
    await running
    assert await world.left_of(SUBJECT) == NOTHING
    assert await world.value("select attempts from lethe.job") == 0
    assert (await world.said())[-1].event.totals["sketch"].objects_gone == 8


async def test_a_server_that_is_away_for_one_person_alone_keeps_nobody_else_waiting(
    world: World,
) -> None:
    """A row that somebody locks for hours, say; theirs is the first turn."""
    ref = "1.07her"
    await world.sketch(1)
    await world.sketch(2, subject=OTHER)
    await world.accept(world.requested(days=1))
    await world.accept(world.requested(ref=ref, subject=OTHER), ref=ref)

    class AwayForOne(FlakyStore):
        async def delete(self, refs: Iterable[ObjectRef], held: Held | None = None) -> Deletion:
            self.calls += 1
            wanted = list(refs)
            if any(SUBJECT in one.key for one in wanted):
                raise ObjectStoreUnavailableError("InternalError")
            return await self._store.delete(wanted, held)

    store = AwayForOne(world.store, set())
    eraser = world.eraser(objects=store, concurrency=1)
    stop = asyncio.Event()
    running = asyncio.create_task(eraser.executor.run(stop))

    async def other_is_verified() -> bool:
        query = "select state = 'verified' from lethe.job where subject_ref = :ref"
        return bool(await world.value(query, ref=ref))

    await until(other_is_verified)
    stop.set()
    await running
    assert store.calls > 1
    state = await world.rows("select state, attempts from lethe.job where subject_ref <> :r", r=ref)
    assert [tuple(row) for row in state] == [("running", 0)]


async def test_a_database_that_restarts_is_waited_for(world: World) -> None:
    for number in range(4):
        await world.sketch(number)
    await world.accept(world.requested())
    eraser = world.eraser(batch_rows=1)
    real = eraser.batches.delete
    cut = asyncio.Event()

    async def cut_off(intent: Any) -> Any:
        gone = await real(intent)
        put_in(eraser.batches, "delete", real)
        await _terminate_all(world)
        cut.set()
        return gone

    put_in(eraser.batches, "delete", cut_off)
    stop = asyncio.Event()
    running = asyncio.create_task(eraser.executor.run(stop))
    # Nothing is asked before, because what asks would be cut off, too.
    await asyncio.wait_for(cut.wait(), 20)
    await until_state(world, "verified")
    stop.set()
    await running
    assert await world.left_of(SUBJECT) == NOTHING
    assert (await world.said())[-1].event.totals["sketch"].objects_gone == 8


async def test_a_connection_that_dies_while_rows_are_masked_is_no_attempt(world: World) -> None:
    """Looked at before the next batch commits, which would forget an attempt."""
    await world.sketch(1)
    await world.accept(world.requested())
    eraser = world.eraser()

    def die(
        _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> tuple[str, Any]:
        if statement.lower().startswith("update public.sketch_feature"):
            return "select pg_terminate_backend(pg_backend_pid())", ()
        return statement, parameters

    engine = world.engine.sync_engine
    event.listen(engine, "before_cursor_execute", die, retval=True)
    with pytest.raises(OperationalError):
        await eraser.executor.run_next(asyncio.Event())
    event.remove(engine, "before_cursor_execute", die)
    [job] = await world.rows("select attempts, error, retry_at from lethe.job")
    assert tuple(job) == (0, None, None)
    assert await to_the_end(world, eraser) == "verified"
    assert await world.left_of(SUBJECT) == NOTHING


async def test_a_product_that_holds_a_row_lock_is_waited_for(world: World) -> None:
    feature = await world.sketch(1)
    await world.accept(world.requested())
    eraser = world.eraser()
    real = eraser.batches.mask
    stop = asyncio.Event()
    async with world.engine.connect() as product:
        transaction = await product.begin()
        await product.execute(
            text("select 1 from sketch_feature where id = :id for update"), {"id": feature}
        )
        failed = asyncio.Event()

        async def mask(*args: Any) -> Any:
            try:
                return await real(*args)
            except Exception:
                failed.set()
                raise

        put_in(eraser.batches, "mask", mask)
        running = asyncio.create_task(eraser.executor.run(stop))
        await asyncio.wait_for(failed.wait(), 20)
        await transaction.rollback()
    await until_state(world, "verified")
    stop.set()
    await running
    assert await world.left_of(SUBJECT) == NOTHING


async def test_a_defect_is_tried_some_times_and_then_told(world: World) -> None:
    await world.sketch(1)
    request = world.requested()
    await world.accept(request)
    eraser = world.eraser()

    async def broken(*_: Any, **__: Any) -> Any:
        raise KeyError("a text that no event may hold")

    put_in(eraser.batches, "collect", broken)
    assert await to_the_end(world, eraser) == "failed"
    last = (await world.said())[-1].event
    assert isinstance(last, Failed)
    assert (last.error, last.request_ids) == ("KeyError", (request.request_id,))
    assert await world.value("select attempts from lethe.job") == MAX_ATTEMPTS
    assert [one.event.name for one in await world.said()] == ["accepted", "started", "failed"]


async def test_a_defect_of_one_person_does_not_stop_the_others(world: World) -> None:
    await world.sketch(1)
    await world.sketch(1, subject="acct-2")
    await world.accept(world.requested(days=1))
    await world.accept(world.requested(ref="1.two", subject="acct-2"), ref="1.two")
    eraser = world.eraser()
    real = eraser.batches.collect

    async def broken(job: Any, subject: str, *rest: Any) -> Any:
        if subject == SUBJECT:
            raise KeyError
        return await real(job, subject, *rest)

    put_in(eraser.batches, "collect", broken)
    await eraser.until_idle()
    jobs = await world.rows("select subject_ref, state from lethe.job")
    states = {row.subject_ref: row.state for row in jobs}
    assert states == {"1.5ub7ec7": "running", "1.two": "verified"}


async def _terminate_all(world: World) -> None:
    async with world.engine.connect() as connection:
        await connection.exec_driver_sql(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        await connection.invalidate()
